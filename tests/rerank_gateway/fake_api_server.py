"""List and watch as the API server does them, and the ways in which they go wrong.

For faults that a real API server gives only by chance. `tests/apiserver/test_gateway_reflector.py` has the
real one.
"""

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from tests.rerank_gateway.objects import Object

Fault = Literal[
    "none",
    "gone",  # 410
    "gone_in_stream",
    "error_in_stream",
    "cut_json",  # half an event, as a whole line
    "truncated",  # half an event, and the stream breaks off
    "forbidden",
    "too_many",  # 429
    "failing",  # 500
    "silent",  # accepted, and nothing comes
    "end",  # accepted, and over at once
]
STATUSES: dict[Fault, int] = {"gone": 410, "forbidden": 403, "too_many": 429, "failing": 500}


@dataclass
class FakeApiServer:
    """`objects` holds what exists. Faults are used up one a request, lists and watches apart."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    list_faults: deque[Fault] = field(default_factory=deque)
    watch_faults: deque[Fault] = field(default_factory=deque)
    requests: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    page: int = 500
    port: int = 0
    _version: int = 1
    _history: list[tuple[int, Object]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Cut everything off."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, body: Object, *, quietly: bool = False) -> None:
        """Create or change an object; `quietly`: no watch will ever tell."""
        identity = (body["kind"], body["metadata"]["name"])
        kind = "MODIFIED" if identity in self.objects else "ADDED"
        self.objects[identity] = self._happened(kind, body, quietly)

    def delete(self, body: Object, *, quietly: bool = False) -> None:
        identity = (body["kind"], body["metadata"]["name"])
        self._happened("DELETED", self.objects.pop(identity), quietly)

    def bookmark(self) -> None:
        self._happened("BOOKMARK", {"kind": "APIKey", "metadata": {"name": ""}}, False)

    def watches(self) -> list[dict[str, str]]:
        """The queries of all watches so far."""
        return [query for _, query, _ in self.requests if "watch" in query]

    def lists(self) -> int:
        """How many lists were begun."""
        return sum("watch" not in query and "continue" not in query for _, query, _ in self.requests)

    def _happened(self, kind: str, body: Object, quietly: bool) -> Object:
        self._version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        if not quietly:
            self._history.append((self._version, {"type": kind, "object": body}))
            self._changed.set()
            self._changed = asyncio.Event()
        return body

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.requests.append((request.path, query, request.headers.get("Authorization", "")))
        if "watch" in query:
            return await self._watch(request, query)
        fault = self.list_faults.popleft() if self.list_faults else "none"
        if fault in STATUSES:
            return web.json_response({"kind": "Status"}, status=STATUSES[fault])
        start = int(query.get("continue", "0"))
        kind = _kind(request.path)
        items = [body for _, body in sorted(self.objects.items()) if body["kind"] == kind]
        metadata: dict[str, Any] = {"resourceVersion": str(self._version)}
        if start + self.page < len(items):
            metadata["continue"] = str(start + self.page)
        return web.json_response({"metadata": metadata, "items": items[start : start + self.page]})

    async def _watch(self, request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        fault = self.watch_faults.popleft() if self.watch_faults else "none"
        if fault in STATUSES:
            return web.json_response({"kind": "Status"}, status=STATUSES[fault])
        response = web.StreamResponse()
        await response.prepare(request)
        if fault == "end":
            return response
        if fault in ("gone_in_stream", "error_in_stream"):
            status = {"kind": "Status", "code": 410 if fault == "gone_in_stream" else 500}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        seen, kind = int(query["resourceVersion"]), _kind(request.path)
        ends = asyncio.get_running_loop().time() + float(query["timeoutSeconds"])
        happened = True
        while happened:
            changed = self._changed
            for version, event in self._history:
                if version > seen and fault != "silent":
                    seen = version
                    if event["object"]["kind"] != kind:
                        continue
                    line = json.dumps(event).encode() + b"\n"
                    await response.write(line[: len(line) // 2])
                    if fault == "cut_json":
                        await response.write(b"\n")
                        return response
                    if fault == "truncated":
                        assert request.transport is not None
                        request.transport.abort()
                        return response
                    await response.write(line[len(line) // 2 :])
            happened = await _came(changed, ends)
        return response


async def _came(event: asyncio.Event, by: float) -> bool:
    """Whether it comes in time."""
    try:
        async with asyncio.timeout_at(by):
            return await event.wait()
    except TimeoutError:
        return False


def _kind(path: str) -> str:
    """The kind that is listed at a path."""
    kinds = {"apikeys": "APIKey", "modeldeployments": "ModelDeployment", "endpointslices": "EndpointSlice"}
    return kinds[path.rpartition("/")[2]]
