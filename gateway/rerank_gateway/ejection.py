"""Which replicas are left alone for a while after they failed, and for how long. Pure.

One failure sets a replica aside for as long as it takes to hear from the API server that it is gone. Three in
a row eject it: 5 seconds, twice as long each time that it fails again, a minute at most (the outlier ejection
of Envoy, which begins at 30 seconds). Nobody probes: when the time is over the next request is the probe, and
its retry the reason why that costs nothing.
"""

from dataclasses import dataclass, field
from typing import Final

# How long a replica that refused a connection or said that it is draining is left alone while others are
# there. Longer than the API server takes to tell us that it is gone, shorter than anybody would notice.
SET_ASIDE_SECONDS: Final = 2.0
FAILURES: Final = 3
FIRST_SECONDS: Final = 5.0
MOST_SECONDS: Final = 60.0


@dataclass(slots=True)
class Health:
    """What a replica's last answers say of it. Times are on the monotonic clock, in seconds."""

    failures: int = 0
    """In a row."""
    ejections: int = 0
    """In a row, without an answer between them."""
    since: float = field(default=float("-inf"))
    until: float = 0.0

    def aside(self, now: float) -> bool:
        """Whether it is to be left alone while others are there."""
        return now < self.until

    def answered(self) -> None:
        """It gave an answer."""
        if self.failures:
            self.failures = self.ejections = 0

    def leave_alone(self, now: float) -> None:
        """It is about to stop: no failure, but nothing for it either."""
        self.until = max(self.until, now + SET_ASIDE_SECONDS)

    def failed(self, started: float, now: float) -> bool:
        """It did not answer what it was asked at `started`. Returns whether that ejected it.

        Requests that were under way together fail together: what began before the last ejection says
        nothing new.
        """
        if started < self.since:
            return False
        self.failures += 1
        if self.failures < FAILURES:
            self.leave_alone(now)
            return False
        self.until = now + min(MOST_SECONDS, FIRST_SECONDS * 2**self.ejections)
        self.ejections = min(self.ejections + 1, 10)
        self.since = now
        return True
