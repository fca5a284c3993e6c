"""Whether a key's limits let a request in, counted over all gateways together.

Twice: on the head, by requests and concurrency, so that what a key sends beyond its limits is not even read;
and on the parsed request, by documents and tokens. What is taken is settled when the model has answered.
"""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from rerank_gateway import errors, limits
from rerank_gateway.consumption import Consumption
from rerank_gateway.errors import ApiError, Headers
from rerank_gateway.limits import SLOTS, UNITS, Amount, Limits, Prices
from rerank_gateway.records import KeyRecord
from rerank_gateway.shares import CONCURRENCY, Others, RefusedError, Shares

_REQUEST: Final[Prices] = (1, 0, 0, 1)
_BUSY_RETRY_SECONDS: Final = 1
_HEADERS: Final = [
    tuple(f"x-ratelimit-{what}-{unit}".encode("ascii") for what in ("limit", "remaining", "reset"))
    for unit in UNITS
]
_MAX_DIGITS: Final = 18


class Admission:
    """The limits of every key at this gateway."""

    def __init__(
        self, consumption: Consumption, others: Others, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._consumption = consumption
        self._shares = Shares(consumption, others, clock)
        self._clock = clock

    async def enter(self, key: KeyRecord, limits: Limits) -> "Reservation":
        """Admit a request by its head.

        Raises:
            ApiError: 429, the key has made as many requests, or has as many in progress, as it may.
        """
        reservation = Reservation(self, key, limits)
        await self.spend(reservation, _REQUEST)
        return reservation

    async def spend(self, of: "Reservation", prices: Prices) -> int:
        """Take what a request needs as soon as it may be taken. Returns the slot that it is counted in.

        Raises:
            ApiError: 429, it may not.
        """
        try:
            return await self._shares.take(of.name, of.bounds, prices)
        except RefusedError as refused:
            raise self._refusal(of, refused.unit, max(1, prices[refused.unit])) from None
        except TimeoutError:
            raise errors.rate_limited(
                "What this API key has left of its limits is being spent by other requests at this moment.",
                retry_after=_BUSY_RETRY_SECONDS,
                headers=self.headers(of),
            ) from None

    def page(self, query: Mapping[str, str]) -> bytes:
        """What another gateway is told (`peers.py`), who may say which keys' shares it asks to exceed."""
        for name in filter(None, query.get("asking", "").split(",")):
            self._shares.revoke(name)
        since = query.get("since", "")
        heard = int(since) if since.isdecimal() and len(since) <= _MAX_DIGITS else 0
        return self._consumption.tell(heard, query.get("process", ""), self._clock())

    def leave(self, of: "Reservation") -> None:
        """The request is no longer in flight."""
        self._shares.leave(of.name)

    def settle(self, of: "Reservation", slot: int, reserved: Amount, real: Amount) -> None:
        """Count what was consumed instead of what was reserved."""
        if real == reserved:
            return
        now = self._clock()
        grown = [after - before for before, after in zip(reserved, real, strict=True)]
        if max(grown) > 0:
            self._consumption.take(of.name, Amount(*[max(0, more) for more in grown]), now)
        if min(grown) < 0:
            self._consumption.give_back(of.name, slot, Amount(*[max(0, -more) for more in grown]), now)

    # What the client is told

    def headers(self, of: "Reservation") -> Headers:
        """`x-ratelimit-*` by the minute, named as OpenAI's. Reset: seconds until all of it is back."""
        now = self._clock()
        known = self._consumption.consumed(of.name, now)
        reset = max(0, self._consumption.newest(of.name) + SLOTS - int(now))
        found: list[tuple[bytes, bytes]] = []
        for (of_limit, of_rest, of_reset), limit, used in zip(
            _HEADERS, of.limits.per_minute, known, strict=True
        ):
            if limit is not None:
                found += (
                    (of_limit, b"%d" % limit),
                    (of_rest, b"%d" % max(0, limit - used)),
                    (of_reset, b"%ds" % (reset if used else 0)),
                )
        return tuple(found)

    def _refusal(self, of: "Reservation", unit: int, price: int) -> ApiError:
        where = f"of the APIKey {of.name}"
        if unit == CONCURRENCY:
            seconds = limits.CONCURRENCY_RETRY_SECONDS
            message = (
                f"This API key has {of.limits.concurrent_requests} requests in progress, as many as "
                f"spec.limits.concurrentRequests {where} allows. Wait for one of them."
            )
        else:
            now = self._clock()
            limit = of.limits.per_minute[unit] or 0
            used = self._shares.known(of.name, of.bounds)[unit]
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
        """Admit the request by its size. `param`: the request's field of documents.

        `tokens` is an estimate, and what others send moves it. So one that exceeds a whole minute's limit is
        no reason to refuse the request for ever: it waits for the whole limit, and pays what it is found to
        have cost.

        Raises:
            ApiError: 400, no key with these limits could ever send such a request; 429, not now.
        """
        most = self.limits.documents_per_request
        if most is not None and documents > most:
            raise self._too_large(documents, most, "documentsPerRequest", param)
        _, most, most_tokens = self.limits.per_minute
        if most is not None and documents > most:
            raise self._too_large(documents, most, "documentsPerMinute", param)
        if most_tokens is not None:
            tokens = min(tokens, most_tokens)
        self._slot = await self._admission.spend(self, (0, documents, tokens, 0))
        self._reserved = Amount(0, documents, tokens)

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

    def _too_large(self, documents: int, most: int, limit: str, param: str) -> ApiError:
        return errors.invalid(
            f"This request has {documents} documents; spec.limits.{limit} of the APIKey {self.name} "
            f"allows {most}. Send fewer documents in one request.",
            param=param,
            code="request_exceeds_limit",
        )
