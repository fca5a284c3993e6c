"""How far a download is and when it will be done. Pure."""

from __future__ import annotations

from collections import deque

# The speed is that of the last so many seconds: a stall shows, a short one does not jump about.
WINDOW = 30.0


class Progress:
    """Estimates the end of a download.

    Args:
        total: Bytes in all.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Note that `done` bytes were there at `now` seconds."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW:
            self._seen.popleft()

    @property
    def done(self) -> int:
        return min(self._seen[-1][1], self.total) if self._seen else 0

    @property
    def eta_seconds(self) -> int | None:
        """Seconds left at the present speed, rounded up; None while nothing moves."""
        left = self.total - self.done
        if left == 0:
            return 0
        if len(self._seen) < 2:
            return None
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        if last <= first or end <= start:
            return None
        return int(left * (end - start) / (last - first)) + 1
