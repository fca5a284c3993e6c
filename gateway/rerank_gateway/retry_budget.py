"""How many second attempts a model may get, so that they never become the load that breaks it. Pure."""

from typing import Final

# Of first attempts (Finagle allows a fifth, Linkerd too).
SHARE: Final = 0.1
# What is there from the start and at most: all that one replica can hold (`balancer.MAX_REQUESTS`) is tried
# again when it is killed, and then another one's.
BURST: Final = 256.0
# What comes back by itself, so that a model with few requests survives a replica killed every few seconds.
PER_SECOND: Final = 20.0


class RetryBudget:
    """A bucket of attempts. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._left = BURST
        self._filled = 0.0

    def first_attempt(self) -> None:
        """Count a first attempt."""
        if self._left < BURST:
            self._left += SHARE

    def take(self, now: float) -> bool:
        """Whether there may be a second attempt, which is then spent."""
        self._left = min(BURST, self._left + (now - self._filled) * PER_SECOND)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
