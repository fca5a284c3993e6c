"""The HTTP/1.1 connection: uvicorn's httptools protocol with the deadlines and bounds that it lacks.

uvicorn alone keeps a silent connection open for ever, reads a head of any size, answers a broken one in
plain text, takes the body of a request that offers an upgrade for the next request, takes what follows a
chunked body for more of its head, and waits for ever for a client that does not read its answer.
"""

import asyncio
import contextlib
import fcntl
import select
import termios
from array import array
from collections.abc import Callable
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rerank_gateway import errors, head
from rerank_gateway.errors import ApiError, Headers
from rerank_gateway.exchange import CLIENT, CLOSE

HEAD_SECONDS: Final = 10.0
_LATE_SECONDS: Final = 1.0
# Longer than the 60 s after which common load balancers and client pools drop an idle connection, so that
# the closing is theirs and no request is sent into a connection that we are closing.
IDLE_SECONDS: Final = 75
FIRST_IDLE_SECONDS: Final = 1
# An answer that the client does not read is held for it only while in each of these spans so much is taken.
ANSWER_SECONDS: Final = 10.0
ANSWER_BYTES_PER_SECOND: Final = 64 * 1024
_SOCKET_FILLS_SECONDS: Final = 0.5  # what the kernel buffers, nobody has read
# Requests behind one that is being served. Benchmarks pipeline 16; whoever sends more wants our memory.
MAX_PIPELINED: Final = 32
# What a chunked body may spend on extensions and trailers, which are dropped, besides its chunks' own sizes.
_FRAMING_BYTES: Final = 16 * 1024
_CHUNK_FRAMING_BYTES: Final = 16


class Connection(HttpToolsProtocol):
    """One client connection. A head has `HEAD_SECONDS` from the connection's or its own first byte.

    It is the `exchange.Client` of the requests that come over it.
    """

    on_gone: Callable[[], None] | None = None
    _serving: RequestResponseCycle | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _head_waits = False
    _in_head = True
    _messages = 0
    _body_bytes = 0
    _framing_bytes = 0
    _framing_allowed = 0
    _idle_before = False
    _upgrade_offered = False
    _replaying = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_answer_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self._serving is not None and not self._serving.response_complete:
            self._serving.disconnected = True  # uvicorn tells the last request, which may be behind it
        if self.on_gone is not None:
            self.on_gone()

    def body_is_here(self) -> bool:
        return self._serving is not None and not self._serving.more_body

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        cycle = cast("RequestResponseCycle", self._serving)
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()  # the client has not read its last answer
        if cycle.disconnected:
            return
        parts = [STATUS_LINE[status]]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive and CLOSE not in headers:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        answer_head = b"".join(parts)
        self.transport.writelines((answer_head, body) if cycle.scope["method"] != "HEAD" else (answer_head,))
        if not cycle.keep_alive or CLOSE in headers:
            self.transport.close()
        cycle.on_response()

    async def answer_is_taken(self) -> None:
        if self.flow.write_paused:
            await self.flow.drain()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        message, body_bytes = self._messages, self._body_bytes
        was_in_head = self._in_head
        if was_in_head:
            self._head_bytes += len(data)
        self._feed(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            if not was_in_head and message == self._messages:
                self._count_framing(len(data) - (self._body_bytes - body_bytes))
        elif self._head_bytes:  # else the usual case: a whole head came at once
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_too_slow)
            if self._head_bytes > head.MAX_HEAD_BYTES:
                self._refuse(head.too_large_head())

    def _count_framing(self, size: int) -> None:
        """Bound what is neither head nor body: it would cost time and be counted nowhere."""
        self._framing_bytes += size
        if self._framing_bytes > _FRAMING_BYTES + self._framing_allowed:
            self._refuse(
                errors.invalid("The chunked body holds more framing than content.", code="invalid_http")
            )

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(errors.invalid("This is not a valid HTTP/1.1 request.", code="invalid_http"))

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on as if no upgrade had been offered (RFC 9110 §7.8 lets a server ignore the offer).

        The parser takes what follows such a head for another protocol. Java's HttpClient offers h2c with
        every first request, body included, so a new parser is told how long the body is and goes on.
        """
        self.parser = httptools.HttpRequestParser(self)
        framing = _framing(self.headers)
        self._upgrade_offered = False
        if framing:
            self._replaying = True
            self._feed(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
            self._replaying = False
        if rest and not self.transport.is_closing():
            self._feed(rest)

    def on_message_begin(self) -> None:
        if not self._replaying:
            self._in_head = True
            self._head_bytes = max(1, self._head_bytes)  # of a head that begins behind another's body
            self._messages += 1
            super().on_message_begin()
            self.scope["extensions"] = {CLIENT: self}  # type: ignore[dict-item] # ASGI wants plain data

    def on_url(self, url: bytes) -> None:
        if not self._replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is no header (RFC 9110 §6.5.1), least of all one that names a key.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._replaying:
            return
        self._in_head = self._head_waits = False
        self._head_bytes = self._framing_bytes = self._framing_allowed = 0
        self._stop_head_timer()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")  # the parser stops; `_feed` refuses
        self._upgrade_offered = self.parser.should_upgrade()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._serving = cycle  # of pipelined requests not the one that came last
        super()._start_asgi_task(cycle, app)

    def on_chunk_header(self) -> None:
        self._framing_allowed += _CHUNK_FRAMING_BYTES

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade_offered and _framing(self.headers):
            return  # the parser only stopped; the body is still to come
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_before = False
        if self._answer_timer is not None:
            self._stop_answer_timer()  # what is left has grown: look anew
            self._watch_reader()
        elif self.transport.is_closing():
            self._watch_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_answer_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Look at an idle connection soon, whether its answer is being read, and end it later."""
        if self._idle_before:
            super().timeout_keep_alive_handler()
            return
        self._idle_before = True
        self._watch_reader()
        self.timeout_keep_alive_task = self.loop.call_later(
            IDLE_SECONDS - FIRST_IDLE_SECONDS, self.timeout_keep_alive_handler
        )

    def shutdown(self) -> None:
        """End the connection when it has nothing to do. What the client has sent already is served first."""
        cycle: RequestResponseCycle | None = self.cycle
        idle = cycle is None or cycle.response_complete
        if idle and (self._head_bytes or _readable(self.transport)):
            return  # what comes is answered with Connection: close, an end is seen
        super().shutdown()
        if self.transport.is_closing():
            self._watch_reader()

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if not self._head_waits and _readable(self.transport):
            self._head_waits = True  # it may have come in time, and we were too slow to read it
            self._head_timer = self.loop.call_later(_LATE_SECONDS, self._head_too_slow)
            return
        if self._head_bytes and not self.transport.is_closing():
            self._refuse(
                errors.invalid("The request's head came too slowly.", status=408, code="head_too_slow")
            )
        elif not self.transport.is_closing():
            self.transport.close()

    def _watch_reader(self) -> None:
        """See that what is left to send is taken. Nothing is added to it meanwhile, so it only shrinks."""
        if self._answer_timer is None and self._unread_bytes():
            self._answer_timer = self.loop.call_later(_SOCKET_FILLS_SECONDS, self._check_reader, None)

    def _check_reader(self, before: int | None) -> None:
        self._answer_timer = None
        left = self._unread_bytes()
        if left and before is not None and before - left < ANSWER_SECONDS * ANSWER_BYTES_PER_SECOND:
            self.transport.abort()
        elif left:
            self._answer_timer = self.loop.call_later(ANSWER_SECONDS, self._check_reader, left)

    def _unread_bytes(self) -> int:
        """What the client's side has not taken: here, and in the kernel."""
        in_kernel = array("i", [0])
        with contextlib.suppress(OSError):  # not every system tells
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return self.transport.get_write_buffer_size() + in_kernel[0]

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: ApiError) -> None:
        """Answer what is no request; only close while the answer to an earlier one is due."""
        cycle: RequestResponseCycle | None = self.cycle
        answered = cycle is None or cycle.response_complete
        broken_itself = cycle is not None and cycle.more_body and not cycle.response_started
        if (answered or broken_itself) and not self.pipeline:
            body = error.body()
            self.transport.write(
                b"%scontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (STATUS_LINE[error.status], len(body), body)
            )
        self.transport.close()
        self._watch_reader()


def _framing(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The head's lines that say where its body ends; none when there is no body."""
    wanted = (b"content-length", b"transfer-encoding")
    return b"".join(b"%s: %s\r\n" % (name, value) for name, value in headers if name in wanted)


def _readable(transport: asyncio.Transport) -> bool:
    """Whether bytes, or the client's end, have come that the event loop has not read yet."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
