"""Ids of requests: no two alike, and no secret. Who guesses one can do nothing with it.

So they come from a generator that is seeded by the operating system once: to ask it for each request would
cost a system call.
"""

import random
from typing import Final

_generator: Final = random.Random()  # noqa: S311 - see above


def draw(size: int) -> str:
    """A new id of so many bytes, in hexadecimal."""
    return _generator.randbytes(size).hex()
