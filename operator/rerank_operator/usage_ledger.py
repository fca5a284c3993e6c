"""What the collector keeps in memory: reports that no object holds yet, and which gateways live.

No clock, no network: times in seconds on any clock that does not go back come with each call. All of it may
be lost at any time: a gateway asked anew tells everything once more, and what was added already stands in
the objects.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rerank_operator.usage_report import KeyRef, KeyReport, Report

# A process that was not heard of for so long and in so many rounds, while every address of every gateway
# answered without a break, is gone: taken for gone too early, it would be added once more when it comes back.
GONE_SECONDS: Final = 300.0
GONE_ROUNDS: Final = 10


class Position(NamedTuple):
    """How far a process has been followed, in its versions: what was heard, and what objects hold."""

    heard: int
    saved: int


class _Moment(NamedTuple):
    """The number of a round, and a time in it."""

    round: int
    time: float


_START: Final = _Moment(0, 0.0)


@dataclass(slots=True)
class _Process:
    heard: int = 0
    last: _Moment = _START
    phase: str = "serving"
    here: bool = True


@dataclass(slots=True)
class Ledger:
    """`write_seconds`: the least time between two writes of one key, but for the last of a gateway."""

    write_seconds: float
    _processes: dict[str, _Process] = field(default_factory=dict)
    _unsaved: dict[KeyRef, dict[str, KeyReport]] = field(default_factory=dict)
    _not_before: dict[KeyRef, float] = field(default_factory=dict)
    _now: _Moment = _START
    _complete_since: _Moment | None = None

    def __len__(self) -> int:
        """Keys with something unsaved."""
        return len(self._unsaved)

    def hear(self, report: Report, now: float) -> None:
        """Take in one answer."""
        process = self._processes.setdefault(report.process, _Process())
        process.heard, process.phase, process.here = report.version, report.phase, True
        process.last = _Moment(self._now.round + 1, now)
        for key in report.keys:
            self._unsaved.setdefault(key.key, {})[report.process] = key

    def end_round(self, answered: AbstractSet[str], now: float, *, complete: bool) -> None:
        """Every gateway that could be found was asked. `complete`: they were found, and all answered."""
        for name, process in self._processes.items():
            process.here = name in answered
        self._now = _Moment(self._now.round + 1, now)
        if not complete:
            self._complete_since = None
        elif self._complete_since is None:
            self._complete_since = self._now
        waited_for = {name for reports in self._unsaved.values() for name in reports}
        for name in [name for name in self._processes if self.is_gone(name) and name not in waited_for]:
            del self._processes[name]
        self._not_before = {key: when for key, when in self._not_before.items() if when > now}

    def position(self, name: str) -> Position:
        """Where to go on with a process. Zeros for one that was never heard."""
        process = self._processes.get(name, _Process())
        waits = any(name in reports for reports in self._unsaved.values())
        return Position(process.heard, 0 if waits else process.heard)

    def is_gone(self, name: str) -> bool:
        """Whether a process will never report again. One that this operator never heard may be meant.

        What counts is what rounds saw, not the time: an operator that was suspended saw nothing.
        """
        if self._complete_since is None:
            return False
        process = self._processes.get(name)
        since = self._complete_since if process is None else max(self._complete_since, process.last)
        silent = self._now.time - since.time
        return silent >= GONE_SECONDS and self._now.round - since.round >= GONE_ROUNDS

    def is_leaving(self, name: str) -> bool:
        """Whether a process that answers is about to go."""
        process = self._processes.get(name)
        return process is not None and process.here and process.phase != "serving"

    @property
    def hurried(self) -> bool:
        """Whether any process is about to go."""
        return any(map(self.is_leaving, self._processes))

    def due(self, now: float, *, everything: bool = False) -> list[KeyRef]:
        """The keys to write now: first those of which a gateway that is leaving told."""
        leaving = {
            name
            for name, process in self._processes.items()
            if not process.here or process.phase == "stopped"
        }
        first = [key for key, reports in self._unsaved.items() if not leaving.isdisjoint(reports)]
        urgent = set(first)
        rest = [
            key
            for key in self._unsaved
            if key not in urgent and (everything or now >= self._not_before.get(key, now))
        ]
        return first + rest

    def reports(self, key: KeyRef) -> Mapping[str, KeyReport]:
        """By process, what is unsaved of a key: to be given to `settle` when it was written."""
        return dict(self._unsaved.get(key, {}))

    def settle(self, key: KeyRef, reports: Mapping[str, KeyReport], now: float, *, written: bool) -> None:
        """The object holds these reports, or never will. `written`: it took a write."""
        left = {
            name: report
            for name, report in self._unsaved.get(key, {}).items()
            if report is not reports.get(name)
        }
        if left:
            self._unsaved[key] = left
        else:
            self._unsaved.pop(key, None)
        if written:
            self._not_before[key] = now + self.write_seconds
