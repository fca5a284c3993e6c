"""The HTTP/1.1 client of the gateway: a POST to replicas, a GET to other gateways, one at a time over a
kept-alive connection, nothing else.

Small on purpose. A general client (aiohttp) costs more CPU for each request than everything else that the
gateway does to it, and does not say whether the connection that broke had been used before, which decides
whether a request may be sent again (`bench/RESULTS.md`).
"""

import asyncio
import math
from typing import Final, cast

import httptools

from rerank_gateway.backend import (
    DRAINING_HEADER,
    OMIT_DOCUMENTS,
    PATH,
    PLAN_HEADER,
    QUERY_TOKENS_HEADER,
    TRUNCATED_HEADER,
    BackendAnswer,
    InvalidAnswerError,
    UnreachableError,
)
from rerank_gateway.records import Address

_CONNECT_SECONDS: Final = 3.0
# Below the 75 s after which the runtime closes an idle connection, so that the closing is ours.
_IDLE_SECONDS: Final = 30.0
# A replica that closed a connection while it was idle resets it as soon as something is sent, within a round
# trip. What breaks later had been read, and may be what broke the replica.
_STALE_SECONDS: Final = 1.0
_TOLD: Final = {TRUNCATED_HEADER: "truncated", QUERY_TOKENS_HEADER: "query_tokens", PLAN_HEADER: "plan"}
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class HttpClient:
    """A Backend, and what `peers.py` asks with. One pool of connections for each address."""

    def __init__(self) -> None:
        self._pools: dict[Address, _Pool] = {}

    async def rerank(
        self, address: Address, body: bytes, token: str | None, names: bytes, until: float
    ) -> BackendAnswer:
        pool = self._pool(address)
        return await pool.ask(pool.post(len(body), token, names), body, until)

    async def get(self, address: Address, target: str) -> BackendAnswer:
        pool = self._pool(address)
        return await pool.ask(pool.get(target), b"", math.inf)  # who asks has a deadline of its own

    def _pool(self, address: Address) -> "_Pool":
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = _Pool(address)
        return pool

    def forget(self, address: Address) -> None:
        pool = self._pools.pop(address, None)
        if pool is not None:
            pool.retire()

    def close(self) -> None:
        for address in list(self._pools):
            self.forget(address)


class _Pool:
    """The connections to one replica. The one that was used last is used first, so that others grow old."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[_Connection] = []
        self._retired = False
        self._host = f"Host: {address.authority}\r\n"
        self._head = f"POST {PATH} HTTP/1.1\r\n{self._host}{OMIT_DOCUMENTS}\r\n".encode("ascii")

    def get(self, target: str) -> bytes:
        return f"GET {target} HTTP/1.1\r\n{self._host}\r\n".encode("ascii")

    def post(self, length: int, token: str | None, names: bytes) -> bytes:
        authorization = f"Authorization: Bearer {token}\r\n".encode("ascii") if token is not None else b""
        return b"%s%s%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
            self._head,
            authorization,
            names,
            length,
        )

    async def ask(self, head: bytes, body: bytes, until: float) -> BackendAnswer:
        connection = await self.take(until)
        try:
            answer = await connection.ask(head, body, until)
        except UnreachableError as error:
            if error.stale:
                self.close_idle()  # they are likely as dead
            raise
        except BaseException:
            connection.abort()
            raise
        self.give_back(connection)
        if connection.draining and answer.status == 503:
            raise UnreachableError("draining", draining=True)
        return answer

    async def take(self, until: float) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(until, loop.time() + _CONNECT_SECONDS)):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop), self._address.host, self._address.port
                )
        except OSError as error:  # TimeoutError is one
            if loop.time() >= until:
                raise TimeoutError from None
            raise UnreachableError(type(error).__name__) from error
        return connection

    def give_back(self, connection: "_Connection") -> None:
        if connection.keep_alive and not self._retired:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.abort()

    def close_idle(self) -> None:
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def retire(self) -> None:
        self._retired = True
        self.close_idle()


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. The methods named on_… are called by the parser."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.draining = False
        self.keep_alive = False
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[BackendAnswer] | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._told: dict[str, bytes] = {}
        self._used = False
        self._asked_at = 0.0
        self._heard = False
        self._idle_timer: asyncio.TimerHandle | None = None

    # For the pool

    async def ask(self, head: bytes, body: bytes, until: float) -> BackendAnswer:
        """Send a request and wait for its answer."""
        answer: asyncio.Future[BackendAnswer] = self._loop.create_future()
        self._answer = answer
        self._heard = False
        self._asked_at = self._loop.time()
        transport = cast("asyncio.Transport", self._transport)
        transport.writelines((head, body))
        # Not `asyncio.timeout`: that costs a small request a fiftieth of its time.
        timer = self._loop.call_at(until, self._fail, TimeoutError())
        try:
            return await answer
        finally:
            timer.cancel()
            self._answer = None
            self._used = True

    def usable(self) -> bool:
        """Whether an idle connection can be used; it then is no longer idle."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        return self._transport is not None and not self._transport.is_closing()

    def rest(self) -> None:
        """Stay open for the next request, for a while."""
        self._idle_timer = self._loop.call_later(_IDLE_SECONDS, self.abort)

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    # For the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        at_once = self._loop.time() - self._asked_at < _STALE_SECONDS
        stale = self._used and not self._heard and at_once
        self._fail(UnreachableError(type(exc).__name__ if exc else "closed", stale=stale))

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._answer is None:
            self.abort()  # nothing was asked, or nobody waits any more
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(InvalidAnswerError(type(error).__name__))
            self.abort()

    # For the parser

    def on_message_begin(self) -> None:
        self._chunks = []
        self._size = 0
        self._told = {}
        self.draining = False

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == DRAINING_HEADER:
            self.draining = True
        elif lower in _TOLD:
            self._told[_TOLD[lower]] = value

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._size += len(body)
        if self._size > _MAX_ANSWER_BYTES:
            self._fail(InvalidAnswerError("answer too large"))
            self.abort()

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():
            return  # an interim answer: the real one follows
        self.keep_alive = self._parser.should_keep_alive()
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._answer.set_result(BackendAnswer(status, body, **self._told))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
