"""What a key used, added up from what each gateway process has counted since it started. Pure.

A process counts up from zero. What it had counted when it was last added up stands beside the totals, in the
same object, and both change in one write. So what is new is known from the object alone: nothing is added
twice, and nothing that a gateway still tells is lost, wherever an operator is cut off. Called by the
collector, which reads, folds and writes onto exactly what it read.
"""

from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

from rerank_api.api_key import LISTED_MODELS, OTHER_MODELS, GatewayUsage, ModelUsage, Usage, UsageCounts

# The attributes of an APIKey's status that are written here and nowhere else.
FIELDS: Final = frozenset({"usage", "last_used_time"})
# As many as the CRD takes. More have to wait until others are gone: their counts only grow meanwhile.
MAX_GATEWAYS: Final = 128
_MOST: Final = 2**63 - 1


class Counts(NamedTuple):
    """Answered requests, their documents and tokens, and refused requests."""

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    rejected: int = 0

    @classmethod
    def of(cls, counts: UsageCounts) -> Self:
        return cls(counts.requests, counts.documents, counts.tokens, counts.rejected)

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*(min(a + b, _MOST) for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Counts") -> "Counts":
        return Counts(*(a - b for a, b in zip(self, other, strict=True)))

    def least_above(self, other: "Counts") -> "Counts":
        """Each the greater of the two: a count never goes down, whatever a gateway says."""
        return Counts(*map(max, self, other))


Rows = Mapping[str, Counts]
"""Counts by model."""


def fold(previous: Usage | None, reports: Mapping[str, Rows], gone: Container[str]) -> Usage | None:
    """Add what is new.

    Args:
        previous: the usage as it stands in the object.
        reports: by process, what it has counted since it started; a process may be left out.
        gone: processes that will never report again. They are dropped when there is something to write
            anyway: their counts are in the totals.

    Returns:
        `previous` itself where nothing is new.
    """
    old = previous or Usage()
    totals = _rows(old.models)
    seen = {gateway.id: _rows(gateway.models) for gateway in old.gateways}
    seen = {process: rows for process, rows in seen.items() if process in reports or process not in gone}
    changed = False
    for process, rows in reports.items():
        known = seen.get(process, {})
        if process not in seen and len(seen) >= MAX_GATEWAYS:
            continue
        for model, counts in rows.items():
            before = known.get(model, Counts())
            now = counts.least_above(before)
            if now == before or (model not in known and len(known) > LISTED_MODELS):
                continue
            listed = model if model in totals or len(totals) < LISTED_MODELS else OTHER_MODELS
            totals[listed] = totals.get(listed, Counts()).plus(now.minus(before))
            known[model] = now
            seen[process] = known
            changed = True
    if not changed:
        return previous
    whole = Counts()
    for counts in totals.values():
        whole = whole.plus(counts)
    return Usage(
        **whole._asdict(),
        models=_models(totals),
        gateways=[GatewayUsage(id=process, models=_models(rows)) for process, rows in seen.items()],
    )


def left_out(usage: Usage | None, reports: Mapping[str, Rows]) -> set[str]:
    """The processes for which there was no room: what they counted is not in `usage`."""
    held = {gateway.id for gateway in usage.gateways} if usage else set()
    return {process for process, rows in reports.items() if any(map(any, rows.values()))} - held


def last_used(previous: datetime | None, reported: Iterable[float], now: datetime) -> datetime | None:
    """The latest of all, in whole seconds. `reported` in Unix seconds; none counts that is after `now`."""
    latest = min(max(reported, default=0.0), now.timestamp())
    found = datetime.fromtimestamp(int(latest), UTC)
    if latest <= 0 or (previous is not None and found <= previous):
        return previous
    return found


def _rows(models: Iterable[ModelUsage]) -> dict[str, Counts]:
    return {model.name: Counts.of(model) for model in models}


def _models(rows: Rows) -> list[ModelUsage]:
    return [ModelUsage(name=name, **counts._asdict()) for name, counts in rows.items()]
