"""How fast a model's replicas are, measured while they have more to do than they can. Pure.

A replica that is half idle shows how fast requests come, not how fast it is. So time counts only while
something waits in the gateway: then every replica has all that it may have.
"""

from typing import Final

_HALF_LIFE_SECONDS: Final = 5.0
# Less is an accident of when the measuring began.
_LEAST_SECONDS: Final = 0.2


class Throughput:
    """Tokens a second of one replica of a model; the last seconds count most. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0
        self._waiting = False
        self._last: float | None = None
        self.measured_at: float | None = None
        """When tokens were last counted."""

    def waits(self, *, something: bool) -> None:
        """Whether something waits."""
        if something is not self._waiting:
            self._waiting, self._last = something, None

    def done(self, tokens: int, replicas: int, now: float) -> None:
        """One of `replicas` has read so many tokens. The first after something began to wait starts the
        clock: it was read in a time that nobody measured.
        """
        if not self._waiting:
            return
        if self._last is not None:
            passed = now - self._last
            kept = 0.5 ** (passed / _HALF_LIFE_SECONDS)
            self._tokens = self._tokens * kept + tokens
            self._seconds = self._seconds * kept + passed * max(1, replicas)
            self.measured_at = now
        self._last = now

    @property
    def of_one(self) -> float | None:
        """Tokens a second of one replica, or None where that was never seen."""
        return self._tokens / self._seconds if self._seconds >= _LEAST_SECONDS else None
