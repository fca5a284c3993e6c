"""How many cases fuzz tests try, and which."""

import os
from typing import Any, Final

from hypothesis import settings

_TIMES: Final = float(os.environ.get("FUZZ", "0"))


def fuzz(count: int, **more: Any) -> settings:
    """Settings for a test of `count` cases, the same in every run.

    With FUZZ in the environment (`make soak`) so many times as many, and others in every run; the seed is
    printed and given back by --hypothesis-seed.
    """
    return settings(
        max_examples=round(count * _TIMES) if _TIMES else count,
        derandomize=not _TIMES,
        deadline=None,
        print_blob=True,
        **more,
    )
