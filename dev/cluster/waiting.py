"""Waiting on a condition with a deadline: the only kind of waiting here."""

import time
from collections.abc import Callable

from dev.cluster.errors import ClusterError


def wait_until(what: str, condition: Callable[[], bool], *, seconds: float, every: float = 0.1) -> None:
    """Return as soon as the condition holds.

    Args:
        what: the condition in words, for the error.
        condition: asked again and again; may raise ClusterError to end the wait at once.
        seconds: the deadline, from now.
        every: seconds between two questions.

    Raises:
        ClusterError: the deadline passed.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"gave up after {seconds:.0f} s waiting for: {what}")
        time.sleep(every)
