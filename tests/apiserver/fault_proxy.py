"""Stands between an operator and the API server, and may fail in any way that a network or a server can.

Plain HTTP towards the operator; credentials are passed on, watches streamed line by line. What happens to a
request is its fault's to say (`Fault`); without one it is passed on.
"""

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from aiohttp import web

from dev.cluster.access import Access
from tests.apiserver.api import Object

Answer = TypeVar("Answer")

_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_LOOK_SECONDS = 0.05
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Asked:
    """One request of the operator's."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def is_write(self) -> bool:
        """It would change something. The Lease does not count: when that is written tells only the time."""
        return self.method != "GET" and "dryRun" not in self.query and not self.is_lease

    @property
    def is_lease(self) -> bool:
        return "/leases" in self.path

    @property
    def what(self) -> str:
        """The request in words that are the same in every namespace and at every time."""
        parts = self.path.split("/")
        parts = parts[parts.index("namespaces") + 2 if "namespaces" in parts else 4 :]
        words = [self.method, "/".join(parts)]
        if parts == ["events"]:
            event = json.loads(self.body)
            words += [f"{event['regarding']['kind']}/{event['regarding']['name']}", event["reason"]]
        if "/" in self.query.get("fieldManager", ""):
            words.append("as " + self.query["fieldManager"])
        return " ".join(words)


class Fault:
    """What happens to requests. This one does nothing; others override what they are about.

    Attributes:
        late_seconds: how long after its end a request may arrive that was asked during it.
    """

    late_seconds = 0.0

    async def answer(self, exchange: "Exchange") -> web.StreamResponse:
        """Answer a request."""
        return await exchange.pass_on()

    def interrupt(self, _asked: Asked) -> bytes | None:
        """The last bytes of a watch that is open when the fault begins; its connection breaks after them.

        None lets the watch be.
        """
        return None

    def keeps_silent(self, _asked: Asked) -> bool:
        """Whether a watch tells nothing any more, for as long as the operator listens."""
        return False


class Exchange:
    """A request and the ways to answer it."""

    def __init__(self, proxy: "FaultProxy", request: web.Request, asked: Asked) -> None:
        self.asked = asked
        self._proxy = proxy
        self._request = request

    def break_off(self) -> web.StreamResponse:
        """Close the connection without an answer."""
        if self._request.transport is not None:
            self._request.transport.abort()
        return web.Response()

    def refuse(self, status: int, reason: str, message: str, **headers: str) -> web.StreamResponse:
        """Answer as the API server refuses."""
        return web.json_response(_failure(status, reason, message), status=status, headers=headers)

    async def upstream(self) -> web.Response:
        """What the API server answers; the operator has not heard of it yet."""
        async with self._ask() as response:
            body = await response.read()
            self._proxy.done.append((self.asked, response.status))
            return web.Response(status=response.status, headers=_passed(response.headers), body=body)

    async def pass_on(self) -> web.StreamResponse:
        """Answer what the API server answers."""
        return await self._stream() if self.asked.is_watch else await self.upstream()

    async def open(self) -> web.StreamResponse:
        """The head of an answer to a watch."""
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(self._request)
        return stream

    @asynccontextmanager
    async def _ask(self) -> AsyncIterator[aiohttp.ClientResponse]:
        asking = asyncio.ensure_future(
            self._proxy.client.request(
                self._request.method,
                self._proxy.target + self._request.raw_path,
                headers=_passed(self._request.headers),
                data=self.asked.body or None,
                skip_auto_headers=("Accept", "Content-Type", "User-Agent"),
            )
        )
        self._proxy.unanswered.add(asking)
        asking.add_done_callback(self._proxy.unanswered.discard)
        response = await asyncio.shield(asking)  # what is cancelled amid a handshake leaves its socket open
        async with response:
            try:
                yield response
            finally:
                if response.connection is not None and response.connection.transport is not None:
                    response.connection.transport.abort()  # not read to its end: close it without a farewell

    async def _stream(self) -> web.StreamResponse:
        """A watch, line by line, until it ends or a fault ends it."""
        began_with = self._proxy.fault
        async with self._ask() as response:
            if response.status != 200:
                body = await response.read()
                return web.Response(status=response.status, headers=_passed(response.headers), body=body)
            stream = await self.open()
            with suppress(aiohttp.ClientError, OSError):  # somebody has left
                await self._copy(response.content, stream, began_with)
            return stream

    async def _copy(self, lines: aiohttp.StreamReader, stream: web.StreamResponse, known: Fault) -> None:
        reading = asyncio.ensure_future(lines.readline())
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=_LOOK_SECONDS)
                fault = self._proxy.fault
                if fault.keeps_silent(self.asked):
                    await asyncio.sleep(_FOR_EVER)
                if fault is not known:
                    known, last = fault, fault.interrupt(self.asked)
                    if last is not None:
                        await stream.write(last)
                        if not last:
                            self.break_off()
                        return
                if done:
                    line = reading.result()
                    if not line:
                        return
                    await stream.write(line)
                    reading = asyncio.ensure_future(lines.readline())
        finally:
            reading.cancel()
            await asyncio.wait({reading})


_FOR_EVER = 3600.0


class FaultProxy:
    """A proxy with a thread of its own.

    Attributes:
        fault: what happens to requests; may be changed at any time.
        asked: every request but the Lease's, in the order in which they came.
        done: those that the API server answered, with the status.
        unanswered: those that the API server has not begun to answer.
    """

    def __init__(self, access: Access) -> None:
        self.target = access.url
        self.fault = Fault()
        self.url = ""
        self.asked: list[Asked] = []
        self.done: list[tuple[Asked, int]] = []
        self.unanswered: set[asyncio.Future[aiohttp.ClientResponse]] = set()
        self.client: aiohttp.ClientSession
        self._authority = access.authority
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run `work` in the proxy's thread."""

        async def run() -> Answer:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)

    async def _start(self) -> None:
        context = ssl.create_default_context(cafile=str(self._authority))
        self.client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
            read_bufsize=2**24,  # a line is an object
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        if self.unanswered:  # one that is given up then says farewell for longer than this loop lives
            await asyncio.wait(self.unanswered, timeout=_ANSWER_SECONDS)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        connector = self.client.connector
        assert connector is not None
        await connector.close(abort_ssl=True)
        await self.client.close()
        for _ in range(5):  # transports close in the next rounds of the loop
            await asyncio.sleep(0)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, request.path, dict(request.query), await request.read())
        if not asked.is_lease:
            self.asked.append(asked)
        exchange = Exchange(self, request, asked)
        try:
            return await self.fault.answer(exchange)
        except (aiohttp.ClientError, OSError):
            return exchange.break_off()


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def error_line(code: int, reason: str, message: str) -> bytes:
    """An event of a watch that tells of an error."""
    return json.dumps({"type": "ERROR", "object": _failure(code, reason, message)}).encode() + b"\n"


def _failure(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
