"""What this gateway may admit of each key's limits, while the others admit, too.

Far from its limits a key costs no waiting: each gateway spends a share of what is left, by what it heard of
the others less than `peers.VIEW_SECONDS` ago, and takes a new one when that is over. Requests that need more
than remains of it wait in a queue. For as many of them as fit the gateway tells the others what they need,
and asks what the others consumed and hold in the same way: if it all fits they go on. Who is asked spends
nothing more of its own share before it has asked in turn. Of two gateways that ask at the same time one at
least sees the other, and the first by name persists.

So never more is admitted than the limit and what other gateways admitted since this one heard from them.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from rerank_gateway import limits
from rerank_gateway.consumption import Consumption
from rerank_gateway.limits import NOTHING, Amount, Bounds, Prices, Verdict

WAIT_SECONDS: Final = 0.5
CONCURRENCY: Final = 3  # the place of requests in flight in `Bounds` and `Prices`

_BACKOFF_SECONDS: Final = 0.02
_REMEMBERED_KEYS: Final = 20_000
_NONE: Final = [*NOTHING]


class View(NamedTuple):
    """What is known of the other gateways. It may be decided by until `expires`, in the event loop's time."""

    number: int
    expires: float


class Others(Protocol):
    """The other gateways (`peers.Peers`)."""

    @property
    def alone(self) -> bool:
        """Whether there is nobody to ask."""

    @property
    def replicas(self) -> int:
        """How many share the limits."""

    @property
    def following(self) -> int:
        """The number of the view that is made of answers yet to be asked for."""

    def silent(self) -> list[str]:
        """Names, where known, of those that serve and do not answer."""

    def view(self) -> View | None:
        """What is known now; None when that is too old."""

    async def exchange(self, key: str | None = None) -> None:
        """Return when everybody that answers has been asked after this call, and has been told to ask in turn
        before they spend more of `key`, if one is given.
        """


class RefusedError(Exception):
    """A limit is reached. `unit` as in `Bounds`."""

    def __init__(self, unit: int) -> None:
        super().__init__(unit)
        self.unit = unit


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request in the queue. `asked`: the others were, since it came."""

    bounds: Bounds
    prices: Prices
    slot: "asyncio.Future[int]"
    asked: bool = False


@dataclass(slots=True)
class _Key:
    """This gateway's share of a key's limits `bounds`, good until `expires`, and the requests that wait.

    `least_view`: of the first view that may give a new share.
    """

    bounds: Bounds | None = None
    allowance: list[int] = field(default_factory=_NONE.copy)
    expires: float = 0.0
    least_view: int = 0
    waiting: deque[_Waiting] = field(default_factory=deque)
    task: "asyncio.Task[None] | None" = None


class Shares:
    """What may be taken of every key, by name. Times are Unix seconds."""

    def __init__(self, consumption: Consumption, others: Others, clock: Callable[[], float]) -> None:
        self._consumption = consumption
        self._others = others
        self._clock = clock
        self._keys: dict[str, _Key] = {}

    async def take(self, name: str, bounds: Bounds, prices: Prices) -> int:
        """Take what a request needs as soon as it may be taken. Returns the slot that it is counted in.

        Raises:
            RefusedError: it does not fit.
            TimeoutError: it may fit, but others are faster.
        """
        key = self._key(name)
        verdict, unit = self._judge(name, key, bounds, prices)
        if verdict is Verdict.ADMIT:
            return self._take(name, key, prices)
        if verdict is Verdict.REFUSE and self._is_final(name, bounds, unit):
            raise RefusedError(unit)
        waiting = _Waiting(bounds, prices, asyncio.get_running_loop().create_future())
        key.waiting.append(waiting)
        if key.task is None:
            key.task = asyncio.create_task(self._serve(name, key))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await waiting.slot
        except (asyncio.CancelledError, TimeoutError):
            if waiting.slot.done() and not waiting.slot.cancelled() and not waiting.slot.exception():
                self._undo(name, prices, waiting.slot.result())
            raise

    def leave(self, name: str) -> None:
        """A request is no longer in flight."""
        self._key(name).allowance[CONCURRENCY] += 1
        self._consumption.leave(name, self._clock())

    def revoke(self, name: str) -> None:
        """Another gateway asks, to spend more than its share: so does this one before it spends more."""
        key = self._key(name)  # which may be asked for here a moment from now
        key.allowance, key.expires, key.least_view = _NONE.copy(), 0.0, self._others.following

    def known(self, name: str, bounds: Bounds) -> list[int]:
        """What all gateways have consumed in the last minute, and what they have in flight.

        A gateway that serves and does not answer is taken to use an equal part of each limit, which is what
        it does where it hears nothing of the others.
        """
        now = self._clock()
        here, elsewhere = self._consumption.in_flight(name)
        known = [*self._consumption.consumed(name, now), here + elsewhere]
        silent = self._others.silent()
        if silent:
            replicas = self._others.replicas + len(silent)
            for replica in silent:
                heard = (*self._consumption.consumed_by(replica, name, now), 0)
                for unit, limit in enumerate(bounds):
                    known[unit] += max(0, (limit or 0) // replicas - heard[unit])
        return known

    # The share

    def _key(self, name: str) -> _Key:
        key = self._keys.get(name)
        if key is None:
            if len(self._keys) >= _REMEMBERED_KEYS:
                self._keys = {other: kept for other, kept in self._keys.items() if kept.task is not None}
            key = self._keys[name] = _Key()
        return key

    def _judge(self, name: str, key: _Key, bounds: Bounds, prices: Prices) -> tuple[Verdict, int]:
        """The verdict, and for a refusal the unit that is used up."""
        known = self.known(name, bounds)
        held = self._consumption.held(name)
        alone = self._others.alone
        if not alone:
            self._renew(key, bounds, [used + others for used, others in zip(known, held, strict=True)])
        ask = False
        for unit, (limit, price) in enumerate(zip(bounds, prices, strict=True)):
            if limit is None:
                continue
            if not price:
                if prices[CONCURRENCY] and known[unit] >= limit:  # who enters needs one of each at least
                    return Verdict.REFUSE, unit
                continue
            allowance = price if alone else key.allowance[unit]
            verdict = limits.decide(limit, known[unit], held[unit], price, allowance)
            if verdict is Verdict.REFUSE:
                return verdict, unit
            ask |= verdict is Verdict.ASK
        return (Verdict.ASK if ask else Verdict.ADMIT), -1

    def _renew(self, key: _Key, bounds: Bounds, used: list[int]) -> None:
        """A new share once the last one is over, none while too little is known."""
        if bounds == key.bounds and asyncio.get_running_loop().time() <= key.expires:
            return
        view = self._others.view()
        key.bounds = bounds
        if view is None or view.number < key.least_view:
            key.allowance, key.expires = _NONE.copy(), 0.0
            return
        replicas = self._others.replicas
        key.expires = view.expires
        key.allowance = [
            0 if limit is None else limits.share(limit, used[unit], replicas)
            for unit, limit in enumerate(bounds)
        ]

    def _is_final(self, name: str, bounds: Bounds, unit: int) -> bool:
        """Whether asking could change a refusal: requests that were in flight elsewhere may have ended."""
        here, elsewhere = self._consumption.in_flight(name)
        return unit != CONCURRENCY or not elsewhere or here >= (bounds[unit] or 0)

    # The queue

    async def _serve(self, name: str, key: _Key) -> None:
        """Serve those that wait, in their order, until none is left."""
        try:
            while (verdict := self._admit(name, key)) is not None:
                waiting = list(key.waiting)
                if verdict is Verdict.REFUSE or not (key.expires or waiting[0].asked):
                    await self._others.exchange()
                elif not await self._hold(name, key):
                    await asyncio.sleep(random.uniform(0, _BACKOFF_SECONDS))  # noqa: S311 - spreads gateways
                for request in waiting:
                    request.asked = True
        finally:
            key.task = None

    def _admit(self, name: str, key: _Key) -> Verdict | None:
        """Answer those in front that can be. The verdict on the first that cannot; None if nobody is left."""
        while key.waiting:
            first = key.waiting[0]
            if not first.slot.done():
                verdict, unit = self._judge(name, key, first.bounds, first.prices)
                if verdict is Verdict.ADMIT:
                    first.slot.set_result(self._take(name, key, first.prices))
                elif verdict is Verdict.REFUSE and (first.asked or self._is_final(name, first.bounds, unit)):
                    first.slot.set_exception(RefusedError(unit))
                else:
                    return verdict
            key.waiting.popleft()
        return None

    async def _hold(self, name: str, key: _Key) -> bool:
        """Admit as many of those in front as fit beside all that the others consumed and hold."""
        bounds = key.waiting[0].bounds
        batch, prices = self._batch(name, key)
        self._consumption.hold(name, prices, self._clock())
        try:
            while True:
                await self._others.exchange(name)
                known, held = self.known(name, bounds), self._consumption.held(name)
                needed = [
                    (limit, known[unit] + price, held[unit])
                    for unit, (limit, price) in enumerate(zip(bounds, prices, strict=True))
                    if limit is not None and price
                ]
                if all(used + others <= limit for limit, used, others in needed):
                    break
                if not self._consumption.is_first(name) or any(used > limit for limit, used, _ in needed):
                    return False
                if all(waiting.slot.done() for waiting in batch):  # too late for all of them
                    return False
            for waiting in batch:
                if not waiting.slot.done():
                    waiting.slot.set_result(self._take(name, key, waiting.prices))
            return True
        finally:
            self._consumption.hold(name, NOTHING, self._clock())

    def _batch(self, name: str, key: _Key) -> tuple[list[_Waiting], Prices]:
        """Those in front that fit together by what is known, and what they need."""
        bounds = key.waiting[0].bounds
        known = self.known(name, bounds)
        batch: list[_Waiting] = []
        needed: Prices = NOTHING
        for waiting in key.waiting:
            if waiting.slot.done():  # its client left, or it waited too long
                continue
            requests, documents, tokens, places = map(sum, zip(needed, waiting.prices, strict=True))
            more = (requests, documents, tokens, places)
            fits = all(
                limit is None or known[unit] + more[unit] <= limit for unit, limit in enumerate(bounds)
            )
            if batch and not fits:
                break
            batch.append(waiting)
            needed = more
        return batch, needed

    def _take(self, name: str, key: _Key, prices: Prices) -> int:
        now = self._clock()
        for unit, price in enumerate(prices):
            key.allowance[unit] -= price
        if prices[CONCURRENCY]:
            self._consumption.enter(name, now)
        return self._consumption.take(name, Amount(*prices[:CONCURRENCY]), now)

    def _undo(self, name: str, prices: Prices, slot: int) -> None:
        if prices[CONCURRENCY]:
            self.leave(name)
        self._consumption.give_back(name, slot, Amount(*prices[:CONCURRENCY]), self._clock())
