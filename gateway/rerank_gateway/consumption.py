"""What was consumed with each limited key in the last minute, at this replica and, as far as it has heard, at
the others.

Every replica counts what it admits, by key and slot, in counters that only grow: what was taken and, apart
from it, what was given back. Replicas read one another's counters and keep the larger of two values, so it
makes no difference how often, in which order or from whom they are heard (the PN-Counter of Shapiro et al.
2011, "Conflict-free Replicated Data Types"). What a replica that is gone consumed is remembered by those that
heard of it until it is a minute old, and told to newcomers. What is so at present (requests in flight, what a
replica holds while it asks the others) is not counted, but read from the replica itself and forgotten with
it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from rerank_gateway.limits import NOTHING, SLOTS, UNITS, Amount, Prices

# Of one answer. What does not fit follows with the next; of other replicas' it is left out.
MAX_KEYS: Final = 5_000
_MAX_KEY_LENGTH: Final = 320  # NAMESPACE/NAME
_MAX_COUNT: Final = 2**53
_UNITS: Final = len(UNITS)

Counts = list[int]
"""What was taken in the order of `Amount`, then what was given back."""
Slots = dict[int, Counts]


class Present(NamedTuple):
    """How it is with a key at a replica at this moment. `held`: what the requests there that ask need."""

    in_flight: int
    held: Prices


_IDLE: Final = Present(0, NOTHING)


class MalformedError(ValueError):
    """What a peer answered cannot be read."""


@dataclass(slots=True)
class _Window:
    """The last minute of one replica with one key. `consumed`: taken and not given back, by unit, which
    `total` holds of all replicas.
    """

    total: list[int]
    slots: Slots = field(default_factory=dict)
    consumed: list[int] = field(default_factory=lambda: [0] * _UNITS)
    newest: int = 0
    _advanced: int = 0

    def advance(self, slot: int) -> None:
        """Forget what was a minute before `slot`."""
        if slot <= self._advanced:
            return
        self._advanced = slot
        for old in [at for at in self.slots if at <= slot - SLOTS]:
            counts = self.slots.pop(old)
            for unit in range(_UNITS):
                self._add(unit, counts[_UNITS + unit] - counts[unit])

    def merge(self, slot: int, counts: Counts) -> None:
        """Keep the larger values."""
        mine = self.slots.setdefault(slot, [0] * (2 * _UNITS))
        for place, count in enumerate(counts):
            if count > mine[place]:
                grown = count - mine[place]
                self._add(place % _UNITS, grown if place < _UNITS else -grown)
                mine[place] = count
        self.newest = max(self.newest, slot)

    def _add(self, unit: int, amount: int) -> None:
        self.consumed[unit] += amount
        self.total[unit] += amount


@dataclass(slots=True)
class _Own(_Window):
    """This replica's. `sequence` of the last change, and of the last change of each slot."""

    in_flight: int = 0
    held: Prices = NOTHING
    sequence: int = 0
    changed: dict[int, int] = field(default_factory=dict)

    def grow(self, counts: Counts, amount: Amount, *, taken: bool) -> None:
        """Add to the counts of one of the slots: what was `taken`, or what was given back."""
        start, sign = (0, 1) if taken else (_UNITS, -1)
        for unit, more in enumerate(amount):
            if more:
                counts[start + unit] += more
                self.consumed[unit] += sign * more
                self.total[unit] += sign * more


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica tells: its own consumption that changed since it was asked last, up to `sequence`.

    `complete`: it is the first answer, or the first after a restart, and carries what it remembers of others.
    """

    replica: str
    sequence: int
    complete: bool
    present: dict[str, Present]
    slots: dict[str, Slots]
    remembered: dict[str, dict[str, Slots]]


class Consumption:
    """The counters of one replica, whose random name is `replica`. Keys are NAMESPACE/NAME, times Unix."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self._sequence = 0
        self._own: dict[str, _Own] = {}  # the one that changed last is last
        self._others: dict[str, dict[str, _Window]] = {}
        self._present: dict[str, dict[str, Present]] = {}
        self._totals: dict[str, list[int]] = {}
        self._advanced: dict[str, int] = {}

    # What this replica does

    def take(self, key: str, amount: Amount, now: float) -> int:
        """Count what is consumed. Returns the slot, for what may be given back later."""
        slot = int(now)
        own = self._change(key, slot)
        counts = own.slots.get(slot)
        if counts is None:
            counts = own.slots[slot] = [0] * (2 * _UNITS)
            own.newest = max(own.newest, slot)
        own.grow(counts, amount, taken=True)
        own.changed[slot] = own.sequence
        return slot

    def give_back(self, key: str, slot: int, amount: Amount, now: float) -> None:
        """Undo a part of what was taken in `slot`. What is a minute old is forgotten anyway."""
        own = self._change(key, int(now))
        counts = own.slots.get(slot)
        if counts is not None:
            own.grow(counts, amount, taken=False)
            own.changed[slot] = own.sequence

    def enter(self, key: str, now: float) -> None:
        """One more request is in flight."""
        self._change(key, int(now)).in_flight += 1

    def leave(self, key: str, now: float) -> None:
        """One less is."""
        self._change(key, int(now)).in_flight -= 1

    def hold(self, key: str, prices: Prices, now: float) -> None:
        """Tell the others what requests that wait need together, uncounted yet; `NOTHING`: there are none."""
        self._change(key, int(now)).held = prices

    def _change(self, key: str, slot: int) -> _Own:
        own = self._own.pop(key, None) or _Own(self._total(key))
        self._own[key] = own
        own.advance(slot)
        self._sequence += 1
        own.sequence = self._sequence
        return own

    # What is known

    def consumed(self, key: str, now: float) -> Amount:
        """By all replicas, in the last minute."""
        slot = int(now)
        if self._advanced.get(key) != slot:
            self._advanced[key] = slot
            for window in self._windows(key):
                window.advance(slot)
        return Amount._make(self._total(key))

    def _total(self, key: str) -> list[int]:
        total = self._totals.get(key)
        if total is None:
            total = self._totals[key] = [0] * _UNITS
        return total

    def consumed_by(self, replica: str, key: str, now: float) -> Amount:
        """By one of the others."""
        window = self._others.get(key, {}).get(replica)
        if window is None:
            return Amount(0, 0, 0)
        window.advance(int(now))
        return Amount(*window.consumed)

    def slots(self, key: str, unit: int, now: float) -> Iterator[tuple[int, int]]:
        """Slots, repeated for each replica, and what was consumed of a unit in them."""
        self.consumed(key, now)
        for window in self._windows(key):
            for slot, counts in window.slots.items():
                yield slot, counts[unit] - counts[_UNITS + unit]

    def newest(self, key: str) -> int:
        """The last slot in which anything was consumed; 0 for none."""
        return max([window.newest for window in self._windows(key)], default=0)

    def in_flight(self, key: str) -> tuple[int, int]:
        """Requests in flight here, and at the other replicas."""
        own = self._own.get(key)
        elsewhere = sum([present.in_flight for _, present in self._elsewhere(key)])
        return own.in_flight if own else 0, elsewhere

    def held(self, key: str) -> Prices:
        """What the other replicas hold."""
        held = [present.held for _, present in self._elsewhere(key) if present.held != NOTHING]
        if not held:
            return NOTHING
        requests, documents, tokens, places = map(sum, zip(*held, strict=True))
        return requests, documents, tokens, places

    def is_first(self, key: str) -> bool:
        """Whether this replica comes before every other that holds something: one of them has to."""
        names = [replica for replica, present in self._elsewhere(key) if present.held != NOTHING]
        return self.replica < min(names, default="\uffff")

    def _elsewhere(self, key: str) -> list[tuple[str, Present]]:
        return [(replica, keys[key]) for replica, keys in self._present.items() if key in keys]

    def _windows(self, key: str) -> Iterator[_Window]:
        own = self._own.get(key)
        if own is not None:
            yield own
        yield from self._others.get(key, {}).values()

    # What replicas tell one another

    def tell(self, since: int, of: str, now: float) -> bytes:
        """The JSON of the `Answer` for who has heard the replica `of` up to `since`.

        Where that is not this one, its name being new with each start, nothing was heard yet.
        """
        complete = of != self.replica
        start = 0 if complete else since
        changed: list[tuple[str, _Own]] = []
        for key, own in reversed(self._own.items()):
            if own.sequence <= start:
                break
            changed.append((key, own))
        changed.reverse()
        part = changed[:MAX_KEYS]
        for _, own in part:
            own.advance(int(now))
        answer: dict[str, Any] = {
            "replica": self.replica,
            "sequence": part[-1][1].sequence if len(part) < len(changed) else self._sequence,
            "complete": complete,
            "keys": {
                key: [own.in_flight, own.held, {slot: own.slots[slot] for slot in _since(own, start)}]
                for key, own in part
            },
        }
        if complete:
            answer["remembered"] = self._remembered(int(now))
        return orjson.dumps(answer, option=orjson.OPT_NON_STR_KEYS)

    def _remembered(self, slot: int) -> dict[str, dict[str, Slots]]:
        found: dict[str, dict[str, Slots]] = {}
        for key, windows in list(self._others.items())[:MAX_KEYS]:
            for replica, window in windows.items():
                window.advance(slot)
                if window.slots:
                    found.setdefault(replica, {})[key] = window.slots
        return found

    def merge(self, answer: Answer, now: float) -> None:
        """Learn what a replica told. Its own voice alone says what is so there at present."""
        if answer.replica == self.replica:
            return
        known = {} if answer.complete else self._present.get(answer.replica, {})
        known |= answer.present
        self._present[answer.replica] = {key: present for key, present in known.items() if present != _IDLE}
        for replica, keys in ((answer.replica, answer.slots), *answer.remembered.items()):
            if replica != self.replica:
                self._merge(replica, keys, int(now))

    def _merge(self, replica: str, keys: dict[str, Slots], now: int) -> None:
        for key, slots in keys.items():
            # A clock that is ahead counts for longer; one that is a minute off does not count.
            recent = {slot: counts for slot, counts in slots.items() if abs(now - slot) < SLOTS}
            if recent:
                window = self._others.setdefault(key, {}).setdefault(replica, _Window(self._total(key)))
                window.advance(now)
                for slot, counts in recent.items():
                    window.merge(slot, counts)

    def forget_present(self, replica: str) -> None:
        """The replica is gone or silent: how it is there is not known any more."""
        self._present.pop(replica, None)

    def prune(self, now: float) -> None:
        """Forget the keys that nothing is known of any more."""
        for key, own in list(self._own.items()):
            own.advance(int(now))
            if not own.slots and not own.in_flight and own.held == NOTHING:
                del self._own[key]
            elif len(own.changed) > len(own.slots):
                own.changed = {slot: own.changed[slot] for slot in own.slots}
        for key, windows in list(self._others.items()):
            for replica, window in list(windows.items()):
                window.advance(int(now))
                if not window.slots:
                    del windows[replica]
            if not windows:
                del self._others[key]
        gone = self._totals.keys() - self._own.keys() - self._others.keys()
        for key in gone:
            del self._totals[key]
            self._advanced.pop(key, None)


def _since(own: _Own, sequence: int) -> Iterator[int]:
    return (slot for slot in own.slots if own.changed[slot] > sequence)


def parse(body: bytes) -> Answer:
    """Read what `Consumption.tell` wrote.

    Raises:
        MalformedError: it is something else. Nothing of it may be used.
    """
    try:
        answer = orjson.loads(body)
        keys = answer["keys"]
        return Answer(
            replica=_name(answer["replica"]),
            sequence=_count(answer["sequence"]),
            complete=answer["complete"] is True,
            present={_name(key): _present(in_flight, held) for key, (in_flight, held, _) in keys.items()},
            slots={key: _slots(slots) for key, (_, _, slots) in keys.items()},
            remembered={
                _name(replica): {_name(key): _slots(slots) for key, slots in of.items()}
                for replica, of in answer.get("remembered", {}).items()
            },
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise MalformedError(f"{type(error).__name__}: {error}") from error


def _present(in_flight: Any, held: list[Any]) -> Present:
    requests, documents, tokens, places = map(_count, held)
    return Present(_count(in_flight), (requests, documents, tokens, places))


def _slots(slots: dict[str, Any]) -> Slots:
    return {int(slot): _counts(counts) for slot, counts in slots.items()}


def _counts(counts: list[Any]) -> Counts:
    if len(counts) != 2 * _UNITS:
        raise ValueError(f"{len(counts)} counts")
    found = [_count(count) for count in counts]
    if any(found[_UNITS + unit] > found[unit] for unit in range(_UNITS)):
        raise ValueError("more given back than taken")
    return found


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise ValueError("a count that is none")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_KEY_LENGTH:
        raise ValueError("a name that is none")
    return value
