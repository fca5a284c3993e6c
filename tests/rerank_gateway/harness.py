"""A whole gateway on free ports in the test's own event loop, filled by hand, and clients for it."""

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from rerank_api import keys
from rerank_gateway import records
from rerank_gateway.config import Settings
from rerank_gateway.gateway import Gateway, listen
from rerank_gateway.records import Kind
from rerank_gateway.state import State
from rerank_gateway.tokens import BackendTokens
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.objects import Object

MASTER = bytes(range(32))
MINTED = keys.mint()
PANDA = [
    "hi",
    "it is a bear",
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear, is a bear species",
]
BODY: Object = {"model": "minilm", "query": "what is a panda bear", "documents": PANDA}


@dataclass
class ByHand:
    """A Source that tests fill."""

    state: State
    synced: bool = True
    age: float = 0.0
    crash: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        await self.crash.wait()
        raise RuntimeError("the source failed")

    def unsynced(self) -> list[str]:
        return [] if self.synced else ["apikeys"]

    def ages(self) -> dict[str, float]:
        return {"by hand": self.age}

    def keys_age(self, namespace: str | None) -> float:
        return self.age

    def put(self, *bodies: Object) -> None:
        for body in bodies:
            kind = records.kind_of(body)
            self.state.put(kind, records.parse(kind, body))

    def clear(self) -> None:
        for kind in Kind:
            self.state.replace(kind, [])

    def remove(self, body: Object) -> None:
        self.state.remove(records.kind_of(body), records.object_id(body))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: Any

    @property
    def param(self) -> str | None:
        found: str | None = self.body["error"]["param"]
        return found


@dataclass
class Running:
    """A gateway that serves, and its client."""

    gateway: Gateway
    source: ByHand
    url: str
    internal_url: str
    port: int
    session: aiohttp.ClientSession
    task: asyncio.Task[None]

    async def rerank(
        self,
        body: Any = None,
        *,
        path: str = "/v1/rerank",
        key: str | None = MINTED.text,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """Post `body` (bytes as they are), or the panda request with `fields` changed."""
        content = body if isinstance(body, bytes) else json.dumps({**(body or BODY), **fields}).encode()
        data = io.BytesIO(content)  # as bytes aiohttp warns of large ones
        sent = {"Content-Type": "application/json", **(headers or {})}
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {key}")
        return await self._answer(self.session.post(self.url + path, data=data, headers=sent))

    async def get(self, path: str, *, key: str | None = MINTED.text) -> Answer:
        headers = {} if key is None else {"X-API-Key": key}
        return await self._answer(self.session.get(self.url + path, headers=headers))

    async def internal(self, path: str) -> Answer:
        return await self._answer(self.session.get(self.internal_url + path))

    async def metric(self, start: str) -> float:
        """The sum of the samples whose lines start so, `rerank_gateway_` left out.

        Gateways serve many tests: compare it with what it was before.
        """
        lines = (await self.internal("/metrics")).body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"rerank_gateway_{start}"))

    async def raw(self, data: bytes, *, seconds: float = 5) -> bytes:
        """Send bytes over a socket of their own and return all that comes until the gateway closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), seconds)
        finally:
            writer.close()

    async def _answer(self, request: Any) -> Answer:
        async with request as response:
            body = await response.read()
            if response.content_type == "application/json":
                body = json.loads(body)
            return Answer(response.status, response.headers, body)


@contextlib.asynccontextmanager
async def running(settings: Settings | None = None, *, synced: bool = True) -> AsyncIterator[Running]:
    """A gateway with the key MINTED and nothing else."""
    sources: list[ByHand] = []

    def source(state: State) -> ByHand:
        sources.append(ByHand(state, synced))
        return sources[0]

    gateway = Gateway(
        settings or Settings(drain_seconds=0, hold_seconds=0),
        BackendTokens(MASTER),
        source,
        version="0.0.test",
    )
    public, internal = (listen(0, "127.0.0.1") for _ in range(2))
    port, internal_port = (listening.getsockname()[1] for listening in (public, internal))
    task = asyncio.create_task(gateway.run(public, internal))
    try:
        async with aiohttp.ClientSession() as session:
            sources[0].put(objects.api_key(MINTED))
            yield Running(
                gateway,
                sources[0],
                f"http://127.0.0.1:{port}",
                f"http://127.0.0.1:{internal_port}",
                port,
                session,
                task,
            )
    finally:
        gateway.stop(at_once=True)
        await asyncio.wait([task])
    if not sources[0].crash.is_set():
        task.result()


def slice_of(engines: Sequence[FakeEngine], **fields: Any) -> list[Object]:
    """One EndpointSlice for each engine: on loopback they differ by port."""
    return [
        objects.endpoint_slice([engine.host], port=engine.port, name=f"slice-{engine.port}", **fields)
        for engine in engines
    ]


async def until(condition: Callable[[], bool], *, seconds: float = 5) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it did not come true in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.002)
