"""The HTTP/1.1 connection: uvicorn's httptools protocol with the deadlines and bounds that it lacks.

uvicorn alone keeps a silent connection open for ever, reads a head of any size, answers a broken one in
plain text, and takes the body of a request that offers an upgrade for the next request.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rerank_gateway import errors, head
from rerank_gateway.errors import ApiError, Headers
from rerank_gateway.exchange import CLIENT, CLOSE

HEAD_SECONDS: Final = 10.0
# Longer than the 60 s after which common load balancers and client pools drop an idle connection, so that
# the closing is theirs and no request is sent into a connection that we are closing.
IDLE_SECONDS: Final = 75


class Connection(HttpToolsProtocol):
    """One client connection. A head has `HEAD_SECONDS` from the connection's or its own first byte.

    It is the `exchange.Client` of the requests that come over it.
    """

    on_gone: Callable[[], None] | None = None
    _serving: RequestResponseCycle
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    _upgrade_offered = False
    _replaying = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        if self.on_gone is not None:
            self.on_gone()

    def body_is_here(self) -> bool:
        return not self._serving.more_body

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        cycle = self._serving
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

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_bytes += len(data)
        self._feed(data)
        if not self._in_head or not self._head_bytes or self.transport.is_closing():
            return  # the usual case: a whole head came at once
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_too_slow)
        if self._head_bytes > head.MAX_HEAD_BYTES:
            self._refuse(head.too_large_head())

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
            super().on_message_begin()
            self.scope["extensions"] = {CLIENT: self}  # type: ignore[dict-item] # ASGI wants plain data

    def on_url(self, url: bytes) -> None:
        if not self._replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._replaying:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._replaying:
            return
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        self._upgrade_offered = self.parser.should_upgrade()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._serving = cycle  # of pipelined requests not the one that came last
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        if self._upgrade_offered and _framing(self.headers):
            return  # the parser only stopped; the body is still to come
        super().on_message_complete()
        self._in_head = True

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection; one whose client does not read its last answer is cut."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._head_bytes and not self.transport.is_closing():
            self._refuse(
                errors.invalid("The request's head came too slowly.", status=408, code="head_too_slow")
            )
        elif not self.transport.is_closing():
            self.transport.close()

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


def _framing(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The head's lines that say where its body ends; none when there is no body."""
    wanted = (b"content-length", b"transfer-encoding")
    return b"".join(b"%s: %s\r\n" % (name, value) for name, value in headers if name in wanted)
