"""The order in which what waits for a model gets its turn: fair between API keys, and between the requests of
one key. Pure: no clock, no I/O.

Between keys it is deficit round robin, counted in tokens (Shreedhar and Varghese, SIGCOMM 1995), and a key
that had nothing waiting comes before those that keep the model busy, once (the sparse flows of FQ-CoDel,
RFC 8290 §4.2). Between the requests of a key it is round robin, one part each, and again a request that comes
goes before those that had their turn in this round.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    """A part of a request that is sent by itself."""

    @property
    def tokens(self) -> int:
        """About how much work it is, at least 1."""

    @property
    def documents(self) -> int:
        """How many it holds."""


_I = TypeVar("_I", bound=Item)
_O = TypeVar("_O")


class Flow(Generic[_I, _O]):
    """What waits of one key. Its requests are in an `OrderedDict`, which any of them leaves cheaply.

    Attributes:
        deficit: tokens that it may still take in this round of keys.
        now: its requests that have their turn in this round of requests.
        later: those that have had it.
        joined: tokens of requests that came while the round was under way. Only so many may, so that a key
            that asks for one document after another does not keep its own large request waiting for ever.
    """

    __slots__ = ("deficit", "documents", "joined", "key", "later", "now", "requests", "tokens")

    def __init__(self, key: Hashable, deficit: int) -> None:
        self.key = key
        self.deficit = deficit
        self.now: OrderedDict[Entry[_I, _O], None] = OrderedDict()
        self.later: OrderedDict[Entry[_I, _O], None] = OrderedDict()
        self.joined = 0
        self.requests = 0
        self.documents = 0
        self.tokens = 0

    def first(self) -> "Entry[_I, _O] | None":
        """The request whose turn is next."""
        return next(iter(self.now or self.later), None)

    def push(self, entry: "Entry[_I, _O]", most: int) -> None:
        """Let one more wait; `most` tokens of them may join the round."""
        if self.joined < most:
            self.joined += entry.items[0].tokens
            self.now[entry] = None
        else:
            self.later[entry] = None

    def take(self) -> None:
        """The turn of `first` is over."""
        if not self.now:
            self.now, self.later, self.joined = self.later, self.now, 0
        entry, _ = self.now.popitem(last=False)
        if entry.items:
            self.later[entry] = None

    def remove(self, entry: "Entry[_I, _O]") -> None:
        """It waits no more, if it did."""
        self.now.pop(entry, None)
        self.later.pop(entry, None)


class Entry(Generic[_I, _O]):
    """A request that waits: what is left of it, and the `owner` that is told when its turn comes."""

    __slots__ = ("flow", "items", "owner")

    def __init__(self, flow: Flow[_I, _O], items: Iterable[_I], owner: _O) -> None:
        self.flow = flow
        self.items = deque(items)
        self.owner = owner


@dataclass(slots=True)
class _Parked:
    """What is to be pushed later of one key."""

    requests: int = 0
    documents: int = 0
    tokens: int = 0


class FairQueue(Generic[_I, _O]):
    """The queue of one model.

    Args:
        quantum: tokens of a key's turn: as many as an item has at most, so that an item takes one turn.

    Attributes:
        requests: that wait for a turn.
        documents: that wait, those of parked items counted.
        tokens: as `documents`.
    """

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._flows: dict[Hashable, Flow[_I, _O]] = {}
        self._new: deque[Flow[_I, _O]] = deque()
        self._old: deque[Flow[_I, _O]] = deque()
        self._parked: dict[Hashable, _Parked] = {}
        self.requests = 0
        self.documents = 0
        self.tokens = 0

    def __bool__(self) -> bool:
        return self.requests > 0

    def push(self, key: Hashable, items: Iterable[_I], owner: _O) -> Entry[_I, _O]:
        """Let a request of `key`, of one item at least, wait."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(key, self._quantum)
            self._new.append(flow)
        entry = Entry(flow, items, owner)
        flow.push(entry, self._quantum)
        self._count(flow, 1, entry.items, 1)
        return entry

    def head(self) -> Entry[_I, _O] | None:
        """The request whose first item is next; the same one until it is taken or the queue changes."""
        while self._new or self._old:
            ring = self._new or self._old
            flow = ring[0]
            first = flow.first()
            if first is not None and first.items[0].tokens <= flow.deficit:
                return first
            ring.popleft()
            if first is not None:
                flow.deficit += self._quantum
            elif ring is self._old:
                del self._flows[flow.key]
                continue
            # Also a new key that has nothing left: forgotten at once it would come first again and again.
            self._old.append(flow)
        return None

    def take(self, entry: Entry[_I, _O]) -> _I:
        """Take the first item of what `head` returned."""
        flow, item = entry.flow, entry.items.popleft()
        flow.deficit -= item.tokens
        flow.take()
        self._count(flow, 0 if entry.items else -1, (item,), -1)
        return item

    def remove(self, entry: Entry[_I, _O]) -> None:
        """Forget what is left of a request, which may be nothing."""
        if entry.items:
            items = tuple(entry.items)
            entry.items.clear()
            entry.flow.remove(entry)
            self._count(entry.flow, -1, items, -1)
        if not self.requests:
            self._flows.clear()
            self._new.clear()
            self._old.clear()

    @contextmanager
    def parked(self, key: Hashable, items: Sequence[_I]) -> Iterator[None]:
        """Count items that are to be pushed later: they wait as others do, and have no turn yet."""
        documents, tokens = sum(item.documents for item in items), sum(item.tokens for item in items)
        parked = self._parked.setdefault(key, _Parked())
        self._park(parked, 1, documents, tokens)
        try:
            yield
        finally:
            self._park(parked, -1, -documents, -tokens)
            if not parked.requests:
                del self._parked[key]

    def _park(self, parked: "_Parked", requests: int, documents: int, tokens: int) -> None:
        parked.requests += requests
        for counted in (parked, self):
            counted.documents += documents
            counted.tokens += tokens

    def ahead(self, key: Hashable, tokens: int, largest: int) -> int:
        """About how many tokens of others are read before a request of `key` is through.

        Args:
            key: whose request it would be.
            tokens: its size.
            largest: the most tokens of an item.
        """
        requests = mine = 0
        for waiting in (self._flows.get(key), self._parked.get(key)):
            if waiting is not None:
                requests, mine = requests + waiting.requests, mine + waiting.tokens
        turns = -(-tokens // largest)
        own = min(mine, requests * turns * largest)
        rivals = self._keys() - self._waits(key)
        return own + min(self.tokens - mine, rivals * max(self._quantum, own + tokens))

    def share(self, key: Hashable) -> tuple[int, int]:
        """The documents of `key` that wait, and how many keys wait, this one counted in any case."""
        waiting = (self._flows.get(key), self._parked.get(key))
        documents = sum(part.documents for part in waiting if part is not None)
        return documents, self._keys() + (not self._waits(key))

    def _keys(self) -> int:
        return len(self._flows) + sum(key not in self._flows for key in self._parked)

    def _waits(self, key: Hashable) -> bool:
        return key in self._flows or key in self._parked

    def _count(self, flow: Flow[_I, _O], requests: int, items: Iterable[_I], sign: int) -> None:
        documents = tokens = 0
        for item in items:
            documents += item.documents
            tokens += item.tokens
        for counted in (flow, self):
            counted.requests += requests
            counted.documents += sign * documents
            counted.tokens += sign * tokens
