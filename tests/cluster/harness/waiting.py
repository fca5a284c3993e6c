"""Waiting on a condition with a deadline, and telling what was there instead when it passes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    describe: str,
    condition: Callable[[], T | None],
    *,
    seconds: float,
    every: float = 0.5,
    story: Callable[[], str] = str,
) -> T:
    """Return the first answer of `condition` that is true.

    Args:
        describe: the condition in words.
        condition: asked again and again; a false answer means not yet.
        seconds: the deadline, from now.
        every: seconds between two questions.
        story: what to print besides when the deadline passes.

    Raises:
        AssertionError: the deadline passed.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {describe}\n{story()}")
        time.sleep(every)
