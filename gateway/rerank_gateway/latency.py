"""How long a model's requests take: counts by steps of a tenth, of which those of old requests are forgotten.
Pure.

Each request costs one count, and each model two small arrays, however much is asked.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
from operator import sub
from typing import Final

WINDOW_SECONDS: Final = 300.0

_LEAST_SECONDS: Final = 0.001
_STEP: Final = 1.1
# Up to an hour, the longest that a request may wait for its ranking.
_STEPS: Final = 160
# Where each ends but the last, which has none, as the first has no beginning.
_ENDS: Final = [_LEAST_SECONDS * math.pow(_STEP, step) for step in range(1, _STEPS)]


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """Of the requests that were answered with rankings in the last window and the one before.

    Attributes:
        median_seconds: half of them took no longer; within a twentieth, as the next one is.
        p95_seconds: 95 of 100 took no longer.
        requests: how many they are.
        seconds_ago: since the newest was answered.
    """

    median_seconds: float
    p95_seconds: float
    requests: int
    seconds_ago: float


class Latency:
    """Of one model's requests: how many took each step, in the window before and in both. Times are monotonic
    seconds.
    """

    __slots__ = ("_both", "_last", "_older", "_until")

    def __init__(self) -> None:
        self._older = _none()
        self._both = _none()
        self._until = -math.inf
        self._last = -math.inf

    def took(self, seconds: float, now: float) -> None:
        """A request was answered after so many seconds."""
        if now >= self._until:
            self._turn(now)
        self._both[bisect_right(_ENDS, seconds)] += 1
        self._last = now

    def figures(self, now: float) -> LatencyFigures | None:
        """None where no request was answered for two windows."""
        if now - self._last > 2 * WINDOW_SECONDS:
            return None
        up_to = list(accumulate(self._both))
        return LatencyFigures(
            median_seconds=_quantile(up_to, 0.5),
            p95_seconds=_quantile(up_to, 0.95),
            requests=up_to[-1],
            seconds_ago=now - self._last,
        )

    def _turn(self, now: float) -> None:
        """Begin a window. The one that ended is kept unless it ended a whole window ago."""
        if now < self._until + WINDOW_SECONDS:
            self._older = array("I", map(sub, self._both, self._older))
            self._until += WINDOW_SECONDS
        else:
            self._older = _none()
            self._until = now + WINDOW_SECONDS
        self._both = self._older[:]


def _none() -> "array[int]":
    return array("I", bytes(4 * _STEPS))


def _quantile(up_to: list[int], part: float) -> float:
    """The middle of the step that the request lies in which so great a part took no longer than."""
    step = bisect_left(up_to, math.ceil(part * up_to[-1]))
    return _LEAST_SECONDS * math.pow(_STEP, step + 0.5)
