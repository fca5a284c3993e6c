"""Whether a key's limits let a request in, counted over all gateways together.

Twice: on the head, by requests and concurrency, so that what a key sends beyond its limits is not even read;
and on the parsed request, by documents and tokens. What is taken is settled when the model has answered.

Away from its limits a key costs no waiting: each gateway spends its share of what is left, by what it heard
of the others less than `peers.VIEW_SECONDS` ago. A request that needs more than remains of the share is told
to the others and they are asked: it goes on if it fits beside what they consumed and what they hold in the
same way. Who is asked spends nothing more of its own share before it has asked in turn. Of two gateways that
ask at the same time one at least sees the other, and the first by name persists. So never more is admitted
than the limit and what other gateways admitted since this one heard from them.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from rerank_gateway import errors, limits
from rerank_gateway.consumption import Consumption
from rerank_gateway.errors import ApiError, Headers
from rerank_gateway.limits import NOTHING, SLOTS, UNITS, Amount, Limits, Prices, Verdict
from rerank_gateway.records import KeyRecord

WAIT_SECONDS: Final = 0.5
_BACKOFF_SECONDS: Final = 0.02
_MAX_DIGITS: Final = 18
_REMEMBERED_KEYS: Final = 20_000

_REQUEST: Final[Prices] = (1, 0, 0, 1)
_CONCURRENCY: Final = 3
_NONE: Final = [*NOTHING]
_BUSY_RETRY_SECONDS: Final = 1


class Others(Protocol):
    """The other gateways (`peers.Peers`)."""

    @property
    def alone(self) -> bool:
        """Whether there is nobody to ask."""

    @property
    def replicas(self) -> int:
        """How many share the limits."""

    def silent(self) -> list[str]:
        """Names, where known, of those that serve and do not answer."""

    def view(self) -> int | None:
        """The number of what is known now; None when that is too old."""

    @property
    def following(self) -> int:
        """The number of the view that is made of answers yet to be asked for."""

    async def exchange(self, key: str) -> None:
        """Return when everybody that answers has been asked after this call, and told to ask in turn before
        they spend more of `key`.
        """


@dataclass(slots=True)
class _Spending:
    """What this gateway may spend of a key in `view`, by unit, then requests in flight.

    `least_view`: the first that gives it anything.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    view: int | None = None
    least_view: int = 0
    limits: Limits | None = None
    allowance: list[int] = field(default_factory=_NONE.copy)


class Admission:
    """The limits of every key at this gateway."""

    def __init__(
        self, consumption: Consumption, others: Others, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._consumption = consumption
        self._others = others
        self._clock = clock
        self._keys: dict[str, _Spending] = {}

    async def enter(self, key: KeyRecord, limits: Limits) -> "Reservation":
        """Admit a request by its head.

        Raises:
            ApiError: 429, the key has made as many requests, or has as many in progress, as it may.
        """
        reservation = Reservation(self, key, limits)
        known = self._known(reservation)
        for unit, limit in enumerate(limits.per_minute):
            if limit is not None and known[unit] >= limit:  # every request needs one of each at least
                raise self._refusal(reservation, unit, 1)
        await self.spend(reservation, _REQUEST)
        return reservation

    async def spend(self, of: "Reservation", prices: Prices) -> int:
        """Take what a request needs as soon as it may be taken. Returns the slot that it is counted in.

        Raises:
            ApiError: 429, it may not.
        """
        spending = self._spending(of)
        verdict, unit = self._judge(of, spending, prices)
        if verdict is Verdict.ADMIT:
            return self._take(of, spending, prices)
        if verdict is Verdict.REFUSE and not self._may_be_over(of, unit):
            raise self._refusal(of, unit, prices[unit])
        try:
            async with asyncio.timeout(WAIT_SECONDS), spending.lock:
                return await self._ask(of, spending, prices)
        except TimeoutError:
            raise errors.rate_limited(
                "What this API key has left of its limits is being spent by other requests at this moment.",
                retry_after=_BUSY_RETRY_SECONDS,
                headers=self.headers(of),
            ) from None

    async def _ask(self, of: "Reservation", spending: _Spending, prices: Prices) -> int:
        asked = False
        while True:
            verdict, unit = self._judge(of, spending, prices)
            if verdict is Verdict.ADMIT:
                return self._take(of, spending, prices)
            if verdict is Verdict.REFUSE and (asked or not self._may_be_over(of, unit)):
                raise self._refusal(of, unit, prices[unit])
            if verdict is Verdict.REFUSE:
                await self._others.exchange(of.name)
            elif await self._hold(of, prices):
                self._renew(of, spending, self._known(of))  # so that this is part of the new share
                return self._take(of, spending, prices)
            else:
                await asyncio.sleep(random.uniform(0, _BACKOFF_SECONDS))  # noqa: S311 - spreads gateways
            asked = True

    async def _hold(self, of: "Reservation", prices: Prices) -> bool:
        """Whether the request fits beside everything that the others consumed and hold."""
        self._consumption.hold(of.name, prices, self._clock())
        try:
            while True:
                await self._others.exchange(of.name)
                known, held = self._known(of), self._consumption.held(of.name)
                needed = [
                    (limit, known[unit] + price, held[unit])
                    for unit, (limit, price) in enumerate(zip(of.bounds, prices, strict=True))
                    if limit is not None and price
                ]
                if all(used + others <= limit for limit, used, others in needed):
                    return True
                if not self._consumption.is_first(of.name) or any(used > limit for limit, used, _ in needed):
                    return False
        finally:
            self._consumption.hold(of.name, NOTHING, self._clock())

    def revoke(self, name: str) -> None:
        """Another gateway asks, to spend more than its share: so does this one before it spends more."""
        spending = self._keys.get(name)
        if spending is not None:
            spending.least_view = self._others.following
            spending.allowance = _NONE.copy()

    def page(self, query: Mapping[str, str]) -> bytes:
        """What another gateway is told (`peers.py`), who may say which keys' shares it asks to exceed."""
        for name in query.get("asking", "").split(","):
            self.revoke(name)
        since = query.get("since", "")
        heard = int(since) if since.isdecimal() and len(since) <= _MAX_DIGITS else 0
        return self._consumption.tell(heard, query.get("process", ""), self._clock())

    # What is known

    def _spending(self, of: "Reservation") -> _Spending:
        spending = self._keys.get(of.name)
        if spending is None:
            if len(self._keys) >= _REMEMBERED_KEYS:
                self._keys = {key: kept for key, kept in self._keys.items() if kept.lock.locked()}
            spending = self._keys[of.name] = _Spending()
        return spending

    def _judge(self, of: "Reservation", spending: _Spending, prices: Prices) -> tuple[Verdict, int]:
        """The verdict, and for a refusal the unit that is used up."""
        known = self._known(of)
        alone = self._others.alone
        if not alone:
            self._renew(of, spending, known)
        held = self._consumption.held(of.name)
        ask = False
        for unit, (limit, price) in enumerate(zip(of.bounds, prices, strict=True)):
            if limit is None or not price:
                continue
            allowance = price if alone else spending.allowance[unit]
            verdict = limits.decide(limit, known[unit], held[unit], price, allowance)
            if verdict is Verdict.REFUSE:
                return verdict, unit
            ask |= verdict is Verdict.ASK
        return (Verdict.ASK if ask else Verdict.ADMIT), -1

    def _renew(self, of: "Reservation", spending: _Spending, known: list[int]) -> None:
        """A new share where there is news, none where it is too old."""
        view = self._others.view()
        if view is None or view < spending.least_view:
            spending.allowance = _NONE.copy()
        elif view != spending.view or of.limits is not spending.limits:
            replicas = self._others.replicas
            spending.allowance = [
                0 if limit is None else limits.share(limit, known[unit], replicas)
                for unit, limit in enumerate(of.bounds)
            ]
        spending.view, spending.limits = view, of.limits

    def _known(self, of: "Reservation") -> list[int]:
        """What all gateways have consumed, and in flight. One that serves and does not answer is taken to use
        an equal part of each limit, which is what it does when it hears nothing of the others.
        """
        now = self._clock()
        here, elsewhere = self._consumption.in_flight(of.name)
        known = [*self._consumption.consumed(of.name, now), here + elsewhere]
        silent = self._others.silent()
        if silent:
            replicas = self._others.replicas + len(silent)
            for replica in silent:
                heard = (*self._consumption.consumed_by(replica, of.name, now), 0)
                for unit, limit in enumerate(of.bounds):
                    known[unit] += max(0, (limit or 0) // replicas - heard[unit])
        return known

    def _may_be_over(self, of: "Reservation", unit: int) -> bool:
        """Whether a refusal may be out of date: requests elsewhere may have ended since."""
        here, elsewhere = self._consumption.in_flight(of.name)
        return unit == _CONCURRENCY and elsewhere > 0 and here < (of.limits.concurrent_requests or 0)

    # What is done

    def _take(self, of: "Reservation", spending: _Spending, prices: Prices) -> int:
        now = self._clock()
        for unit, price in enumerate(prices):
            spending.allowance[unit] -= price
        if prices[_CONCURRENCY]:
            self._consumption.enter(of.name, now)
        return self._consumption.take(of.name, Amount(*prices[:_CONCURRENCY]), now)

    def leave(self, of: "Reservation") -> None:
        """The request is no longer in flight."""
        self._spending(of).allowance[_CONCURRENCY] += 1
        self._consumption.leave(of.name, self._clock())

    def settle(self, of: "Reservation", slot: int, reserved: Amount, real: Amount) -> None:
        """Count what was consumed instead of what was reserved."""
        now = self._clock()
        more, less = (
            Amount(*(max(0, after - before) for before, after in zip(a, b, strict=True)))
            for a, b in ((reserved, real), (real, reserved))
        )
        if any(more):
            self._consumption.take(of.name, more, now)
        if any(less):
            self._consumption.give_back(of.name, slot, less, now)

    # What the client is told

    def headers(self, of: "Reservation") -> Headers:
        """`x-ratelimit-*` by the minute, named as OpenAI's. Reset: seconds until all of it is back."""
        now = self._clock()
        known = self._consumption.consumed(of.name, now)
        newest = self._consumption.newest(of.name, now)
        found: list[tuple[bytes, bytes]] = []
        for unit, limit in enumerate(of.limits.per_minute):
            if limit is not None:
                name = UNITS[unit].encode("ascii")
                reset = max(0, newest + SLOTS - int(now)) if known[unit] else 0
                found += (
                    (b"x-ratelimit-limit-" + name, b"%d" % limit),
                    (b"x-ratelimit-remaining-" + name, b"%d" % max(0, limit - known[unit])),
                    (b"x-ratelimit-reset-" + name, b"%ds" % reset),
                )
        return tuple(found)

    def _refusal(self, of: "Reservation", unit: int, price: int) -> ApiError:
        where = f"of the APIKey {of.name}"
        if unit == _CONCURRENCY:
            seconds = limits.CONCURRENCY_RETRY_SECONDS
            message = (
                f"This API key has {of.limits.concurrent_requests} requests in progress, as many as "
                f"spec.limits.concurrentRequests {where} allows. Wait for one of them."
            )
        else:
            now = self._clock()
            limit = of.limits.per_minute[unit] or 0
            used = self._known(of)[unit]
            seconds = limits.seconds_until(
                used + price - limit, self._consumption.slots(of.name, unit, now), now
            )
            message = (
                f"This API key has used {used} of the {limit} {UNITS[unit]} a minute that "
                f"{limits.field(unit)} {where} allows, and this request needs {price} more. "
                f"Try again in {seconds} seconds."
            )
        return errors.rate_limited(message, retry_after=seconds, headers=self.headers(of))


class Reservation:
    """What one request of a limited key has taken. Leaving it frees its place.

    Documents and tokens are given back when the request is refused or the model fails. A client that leaves
    has spent them: most of the work may have been done by then. The request itself stays counted.
    """

    __slots__ = ("_admission", "_reserved", "_slot", "bounds", "key", "limits", "name")

    def __init__(self, admission: Admission, key: KeyRecord, limits: Limits) -> None:
        self.key = key
        self.limits = limits
        self.name = f"{key.id.namespace}/{key.id.name}"
        self.bounds = (*limits.per_minute, limits.concurrent_requests)
        self._admission = admission
        self._slot = 0
        self._reserved = Amount(0, 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(self)
        if isinstance(error, ApiError):
            self._settle(Amount(0, 0, 0))

    async def spend(self, documents: int, tokens: int, param: str) -> None:
        """Admit the request by its size. `tokens` is an estimate, `param` the request's field of documents.

        Raises:
            ApiError: 400, no key with these limits could ever send such a request; 429, not now.
        """
        cost = Amount(0, documents, tokens)
        most = self.limits.documents_per_request
        if most is not None and documents > most:
            raise self._too_large(f"{documents} documents", f"{most}", "documentsPerRequest", param)
        for unit, limit in enumerate(self.limits.per_minute):
            if limit is not None and cost[unit] > limit:
                about = "about " if UNITS[unit] == "tokens" else ""
                size = f"{about}{cost[unit]} {UNITS[unit]}"
                raise self._too_large(size, f"{limit}", f"{UNITS[unit]}PerMinute", param)
        self._slot = await self._admission.spend(self, (0, documents, tokens, 0))
        self._reserved = cost

    def settle(self, tokens: int) -> None:
        """The model answered and has read so many tokens."""
        self._settle(self._reserved._replace(tokens=tokens))
        self._reserved = Amount(0, 0, 0)

    def headers(self) -> Headers:
        """What is left, for the answer."""
        return self._admission.headers(self)

    def _settle(self, real: Amount) -> None:
        self._admission.settle(self, self._slot, self._reserved, real)
        self._reserved = real

    def _too_large(self, size: str, most: str, limit: str, param: str) -> ApiError:
        return errors.invalid(
            f"This request has {size}; spec.limits.{limit} of the APIKey {self.name} allows {most}. "
            "Send fewer documents in one request.",
            param=param,
            code="request_exceeds_limit",
        )
