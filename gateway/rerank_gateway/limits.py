"""How much may be asked for with a key, and what becomes of a request under it. Pure.

A minute is the sixty slots of one second up to now: at most the limit is admitted in any 59 seconds, and
whoever sends just at the limit, evenly, is never refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Self

SLOTS: Final = 60  # of a second each
CONCURRENCY_RETRY_SECONDS: Final = 1


class Amount(NamedTuple):
    """Something consumed, or a limit on it: requests, documents and tokens."""

    requests: int
    documents: int
    tokens: int


UNITS: Final = Amount._fields

Prices = tuple[int, int, int, int]
"""What a request needs: by the units of `Amount`, then places in flight."""
Bounds = tuple[int | None, int | None, int | None, int | None]
"""The limits in the order of `Prices`; None is no limit."""
NOTHING: Final[Prices] = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """An APIKey's `spec.limits`; None is no limit. `per_minute` in the order of `Amount`."""

    per_minute: tuple[int | None, int | None, int | None] = (None, None, None)
    concurrent_requests: int | None = None
    documents_per_request: int | None = None

    @classmethod
    def parse(cls, spec: dict[str, Any] | None) -> Self | None:
        """None where nothing is limited.

        Raises:
            ValueError: a limit is no whole number above zero.
        """
        fields = spec or {}
        *per_minute, concurrent, documents = (
            _limit(fields, name) for name in (*_PER_MINUTE, "concurrentRequests", "documentsPerRequest")
        )
        limits = cls((per_minute[0], per_minute[1], per_minute[2]), concurrent, documents)
        return None if limits == cls() else limits


_PER_MINUTE: Final = tuple(f"{unit}PerMinute" for unit in UNITS)


def field(unit: int) -> str:
    """Where the limit of a unit of `Amount` is set."""
    return f"spec.limits.{_PER_MINUTE[unit]}"


class Verdict(Enum):
    """ASK: it fits, but more than this replica may spend before it has heard from the others again."""

    ADMIT = "admit"
    ASK = "ask"
    REFUSE = "refuse"


def decide(limit: int, consumed: int, held: int, price: int, allowance: int) -> Verdict:
    """What becomes of a request that needs `price`, where all replicas are known to have consumed `consumed`.

    `held`: what others may be about to consume. `allowance`: what is left of this replica's share.
    """
    if consumed + price > limit:
        return Verdict.REFUSE
    return Verdict.ADMIT if price <= allowance and consumed + held + price <= limit else Verdict.ASK


def share(limit: int, consumed: int, replicas: int) -> int:
    """What one of `replicas` may spend until it hears from the others again: an equal part of what is left.

    Where all of them know the same, their shares never add up to more than that. Who needs more than its
    share asks the others, which takes milliseconds, so shares need not follow demand.
    """
    return max(0, limit - consumed) // replicas


def seconds_until(needed: int, consumed: Iterable[tuple[int, int]], now: float) -> int:
    """Seconds, one at least, until `needed` of what was consumed is more than a minute ago.

    `consumed` holds amounts with their slots, in any order. A minute, where it is less than `needed`.
    """
    for slot, amount in sorted(consumed):
        needed -= amount
        if needed <= 0:
            return min(SLOTS, max(1, slot + SLOTS - int(now)))
    return SLOTS


def _limit(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"spec.limits.{name} is {value!r}, not a whole number above zero")
    return value
