"""How fast a model is, of what the gateways measured, and when that is worth a write. Pure; called by
`measuring`.

What is remembered between looks can be lost at any time: then a model is read once more.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rerank_api.model_deployment import LatencyStatus, MeasuredStatus, ThroughputStatus
from rerank_operator import autoscaler

LOOK_SECONDS: Final = 60.0
# At most one write of a model in so long.
WRITE_INTERVAL: Final = timedelta(minutes=10)
# What is older was there in the look before. Gateways tell it for longer, for nothing else to change.
_FRESH_SECONDS: Final = 2 * LOOK_SECONDS
# Less of a change tells nobody anything.
_MOVED: Final = 0.2


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the requests that one gateway answered lately. `seconds_ago` is of the newest of them."""

    median_seconds: float
    p95_seconds: float
    requests: int
    seconds_ago: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What one gateway has measured of a model.

    Attributes:
        tokens_per_second: what one replica did for it while something waited; None: nothing ever did.
        measured_seconds_ago: how old that is.
        latency: None where nothing was answered lately.
    """

    tokens_per_second: float | None
    measured_seconds_ago: float | None
    latency: Latency | None


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of a model.

    Attributes:
        seen: the newest of each figure.
        held: what its status has; None: not read yet.
        uid: of the model that it was read of.
        written_at: when that was written; None where that is long ago.
    """

    seen: MeasuredStatus
    held: MeasuredStatus | None = None
    uid: str = ""
    written_at: datetime | None = None

    def saw(self, new: MeasuredStatus) -> "Memory":
        """With what was measured since the look before."""
        return replace(self, seen=merged(self.seen, new))

    def read(self, held: MeasuredStatus, uid: str) -> "Memory":
        """With what the status of the model has. An earlier leader wrote it about when it was measured."""
        written_at = _newest(held) if self.held is None else self.written_at
        return replace(self, held=held, uid=uid, written_at=written_at)

    def wrote(self, written: MeasuredStatus, now: datetime) -> "Memory":
        """With what the status of the model has from now on."""
        return replace(self, held=written, written_at=now)

    def is_due(self, now: datetime) -> bool:
        """Whether the model is to be read, and written if that is still so."""
        return self.held is None or (self._is_free(now) and moved(self.held, self.seen))

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to remember of a model of which nothing new is told.

        When it was written can be told from its status again; a model made anew under the name has none.
        """
        return self.held is not None and not moved(self.held, self.seen)

    def _is_free(self, now: datetime) -> bool:
        """A time to come is one of another clock, and tells nothing."""
        return self.written_at is None or not timedelta() <= now - self.written_at < WRITE_INTERVAL


def combined(told: Sequence[Figures], now: datetime) -> MeasuredStatus:
    """What all gateways together have measured since the look before; empty: nothing.

    Throughput: as autoscaling reckons with it.
    Latency: the mean of what the gateways tell, each counting by its requests. That is no percentile of all
    requests, but lies between those of the gateways, which are much alike: they share the same replicas.
    """
    return MeasuredStatus(throughput=_throughput(told, now), latency=_latency(told, now))


def merged(old: MeasuredStatus, new: MeasuredStatus) -> MeasuredStatus:
    """What is new of each, and the old where nothing is."""
    return MeasuredStatus(throughput=new.throughput or old.throughput, latency=new.latency or old.latency)


def moved(old: MeasuredStatus, new: MeasuredStatus) -> bool:
    """Whether something was measured for the first time, or is another by a fifth."""
    before = dict(_numbers(old))
    return any(_is_another(before.get(name), number) for name, number in _numbers(new))


def _is_another(old: float | None, new: float) -> bool:
    return round(abs(new - old) / old, 6) >= _MOVED if old else new != old


def _throughput(told: Sequence[Figures], now: datetime) -> ThroughputStatus | None:
    measured = [
        (figures.tokens_per_second, figures.measured_seconds_ago)
        for figures in told
        if figures.tokens_per_second and figures.measured_seconds_ago is not None
    ]
    newest = min((ago for _, ago in measured), default=math.inf)
    if newest > _FRESH_SECONDS:
        return None
    speed = autoscaler.speed([each for each in measured if each[1] <= newest + _FRESH_SECONDS])
    return ThroughputStatus(tokens_per_second=round(speed), measured_at=_before(now, newest))


def _latency(told: Sequence[Figures], now: datetime) -> LatencyStatus | None:
    parts = [figures.latency for figures in told if figures.latency is not None]
    newest = min((part.seconds_ago for part in parts), default=math.inf)
    if newest > _FRESH_SECONDS:
        return None
    requests = sum(part.requests for part in parts)
    return LatencyStatus(
        median_seconds=_rounded(sum(part.median_seconds * part.requests for part in parts) / requests),
        p95_seconds=_rounded(sum(part.p95_seconds * part.requests for part in parts) / requests),
        requests=requests,
        measured_at=_before(now, newest),
    )


def _numbers(status: MeasuredStatus) -> Iterator[tuple[str, float]]:
    """Those that are worth a write when they change."""
    if status.throughput is not None:
        yield "tokensPerSecond", status.throughput.tokens_per_second
    if status.latency is not None:
        yield "medianSeconds", status.latency.median_seconds
        yield "p95Seconds", status.latency.p95_seconds


def _rounded(seconds: float) -> float:
    """To two digits: gateways count in steps of a tenth."""
    return float(f"{seconds:.2g}")


def _before(now: datetime, seconds: float) -> datetime:
    return (now - timedelta(seconds=seconds)).replace(microsecond=0)


def _newest(held: MeasuredStatus) -> datetime | None:
    return max((part.measured_at for part in (held.throughput, held.latency) if part), default=None)
