"""The HTTP/1.1 connection: uvicorn's httptools protocol with the deadlines and bounds that it lacks.

uvicorn alone keeps a silent connection open for ever, reads a head of any size and answers a broken one in
plain text.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rerank_gateway import errors, head
from rerank_gateway.errors import ApiError
from rerank_gateway.head import MAX_HEAD_BYTES

HEAD_SECONDS: Final = 10.0
# Longer than the 60 s after which common load balancers and client pools drop an idle connection, so that
# the closing is theirs and no request is sent into a connection that we are closing.
IDLE_SECONDS: Final = 75


class Connection(HttpToolsProtocol):
    """One client connection. A head has `HEAD_SECONDS` from the connection's or its own first byte."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head or not self._head_bytes or self.transport.is_closing():
            return  # the usual case: a whole head came at once
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_too_slow)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(head.too_large_head())

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, in plain text
        self._refuse(errors.invalid("This is not a valid HTTP/1.1 request.", code="invalid_http"))

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
        """Answer what never became a request, unless the answer to an earlier one would be cut by it."""
        cycle: RequestResponseCycle | None = self.cycle
        between = cycle is None or cycle.response_complete or not cycle.response_started
        if between and not self.pipeline:
            body = error.body()
            self.transport.write(
                b"%scontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (STATUS_LINE[error.status], len(body), body)
            )
        self.transport.close()
