"""One request and its answer over raw ASGI: bounded reading, one way to answer, an eye on the client."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol, TypeVar, cast

from rerank_gateway import errors, head
from rerank_gateway.dialects import voyage
from rerank_gateway.errors import ApiError, ClientGoneError, Headers
from rerank_gateway.in_flight import InFlight
from rerank_gateway.records import KeyRecord, ModelRecord

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# A body has this long, and longer by what has come divided by the least acceptable rate: slow lines are
# served, a dribble is not (the rule of Apache's mod_reqtimeout, MinRate).
BODY_SECONDS: Final = 10.0
BODY_BYTES_PER_SECOND: Final = 64 * 1024

# A refused body of this size is read and dropped so that the connection can be kept; a larger one is left
# unread and the connection closed, politely: dropping it for a while lets the client read the answer
# instead of seeing a reset.
_DROPPED_BYTES: Final = 1024 * 1024
_DROP_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 32 * 1024 * 1024
_LINGER_SECONDS: Final = 5.0

TAIL_BYTES: Final = 64

CLIENT: Final = "rerank.client"  # the ASGI extension that holds it

_JSON: Final = (b"content-type", b"application/json")
CLOSE: Final = (b"connection", b"close")

_T = TypeVar("_T")


class Client(Protocol):
    """The connection that a request came over (`protocol.Connection`): what ASGI says only at a price.

    A task that waits for `http.disconnect` and a deadline around a body that has come already would cost
    a small request a sixth of its time, and a head and a body that are sent apart as much again.
    """

    on_gone: Callable[[], None] | None
    """Called when the client closes the connection."""

    def body_is_here(self) -> bool:
        """Whether all of the body has come, read or not."""

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer at once, and close the connection where the headers say so."""

    async def answer_is_taken(self) -> None:
        """Wait until the client has read all of the answer but for a socket's worth, or is gone."""


class Exchange:
    """A request in progress. `status` is 0 until it is answered; `notes` go into the access log; `arrived` is
    when its head was there, on the monotonic clock.

    `key` and `model` as soon as they are known: for the access log, metrics and usage.
    What it holds of `in_flight` is given back by `finish`.
    """

    __slots__ = (
        "_client",
        "_closing",
        "_held",
        "_holder",
        "_in_flight",
        "_receive",
        "_scope",
        "_send",
        "_tail",
        "_unread",
        "arrived",
        "head",
        "key",
        "method",
        "model",
        "notes",
        "path",
        "status",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, in_flight: InFlight, closing: bool
    ) -> None:
        self.arrived = time.monotonic()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.head = head.read(scope["raw_path"] + scope["query_string"], scope["headers"])
        if scope["http_version"] not in ("1.1", "1.0"):
            self.head.problem = errors.invalid("Speak HTTP/1.1.", status=505)
        self.status = 0
        self.key: KeyRecord | None = None
        self.model: ModelRecord | None = None
        self.notes: dict[str, Any] = {}
        self._client: Client = scope["extensions"][CLIENT]
        self._scope = scope
        self._receive = receive
        self._send = send
        self._closing = closing
        self._in_flight = in_flight
        self._holder = ""
        self._held = 0
        self._unread = self.head.content_length != 0
        self._tail = b""

    async def read_body(self, max_bytes: int, holder: str) -> bytes:
        """The whole body, which the key `holder` answers for.

        Raises:
            ApiError: 413 when it grows beyond `max_bytes`, 408 when it comes too slowly, 503 when the
                process holds too much already: before it is read where its length is known.
            ClientGoneError: the client left in the middle.
        """
        self._holder = holder
        self._hold(self.head.content_length or 0)
        if self._client.body_is_here():
            return await self._collect(max_bytes, lambda _size: None)
        allowed_until = asyncio.get_running_loop().time() + BODY_SECONDS
        try:
            async with asyncio.timeout_at(allowed_until) as deadline:
                return await self._collect(
                    max_bytes,
                    lambda size: deadline.reschedule(allowed_until + size / BODY_BYTES_PER_SECOND),
                )
        except TimeoutError:
            self._closing, self._unread = True, False  # nothing is gained by waiting for the rest
            raise errors.invalid("The body came too slowly.", status=408, code="body_too_slow") from None

    async def _collect(self, max_bytes: int, progress: Callable[[int], None]) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while self._unread:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._unread = message["more_body"]
            chunks.append(message["body"])
            size += len(chunks[-1])
            if size > max_bytes:
                raise head.too_large(max_bytes)
            if size > self._held:  # chunked
                self._hold(size - self._held)
            progress(size)
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._tail = body[-TAIL_BYTES:]
        return body

    def _hold(self, size: int) -> None:
        self._in_flight.take(size, self._holder)
        self._held += size

    async def finish(self) -> None:
        """See the answer taken by the client, and give back what was held for the request."""
        try:
            await self._client.answer_is_taken()
        finally:
            if self._held:
                self._in_flight.give_back(self._held, self._holder)
                self._held = 0

    async def unless_gone(self, work: Awaitable[_T]) -> _T:
        """Await `work`, and cancel it when the client goes away meanwhile. For after the body is read.

        Raises:
            ClientGoneError: the client left first.
        """
        task = cast("asyncio.Task[object]", asyncio.current_task())
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True
            task.cancel()

        self._client.on_gone = leave
        try:
            return await work
        except asyncio.CancelledError:
            if gone and task.uncancel() == 0:
                raise ClientGoneError from None
            raise
        finally:
            self._client.on_gone = None

    async def respond(
        self, status: int, body: bytes, *, headers: Headers = (), content_type: bytes | None = None
    ) -> None:
        """Send the answer. A body that was not read is dropped first, or lingers behind the answer."""
        linger = self._unread and not await self._drop_body()
        await self._answer(status, body, headers, content_type, linger=linger)

    async def refuse(self, error: ApiError) -> None:
        """Send an error in the one shape that all have, but for the client that cannot read it."""
        linger = self._unread and not await self._drop_body()
        body = error.body(as_text=voyage.is_end(self._tail))
        await self._answer(error.status, body, error.headers, None, linger=linger)

    async def _answer(
        self, status: int, body: bytes, headers: Headers, content_type: bytes | None, *, linger: bool
    ) -> None:
        self.status = status
        if self._held:
            self._in_flight.add(len(body), self._holder)
            self._held += len(body)
        answer_headers = (
            (b"content-type", content_type) if content_type else _JSON,
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.head.request_id.encode("ascii")),
            *headers,
            *((CLOSE,) if linger or self._closing else ()),
        )
        if not linger:
            await self._client.answer(status, answer_headers, body)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": answer_headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if not self.head.expects_continue:  # such a client sends nothing before it is asked to
            await self._drop(_LINGER_BYTES, _LINGER_SECONDS)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def delegate(self, app: App) -> None:
        """Let another ASGI application answer a request that has no body."""
        if self._unread:
            raise errors.invalid(f"{self.method} {self.path} takes no body.")

        async def send(message: Message) -> None:
            self.status = message.get("status", self.status)
            await self._send(message)

        await app(self._scope, self._receive, send)

    async def _drop_body(self) -> bool:
        """Whether the connection is clean again: the whole body came and was dropped."""
        length = self.head.content_length
        if self.head.expects_continue or length is None or not 0 <= length <= _DROPPED_BYTES:
            return False
        return await self._drop(_DROPPED_BYTES, _DROP_SECONDS)

    async def _drop(self, max_bytes: int, seconds: float) -> bool:
        dropped = 0
        try:
            async with asyncio.timeout(seconds):
                while dropped <= max_bytes:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        return False
                    self._tail = (self._tail + message["body"])[-TAIL_BYTES:]
                    if not message["more_body"]:
                        return True
                    dropped += len(message["body"])
        except TimeoutError:
            pass
        return False
