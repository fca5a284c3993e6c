"""A client behind a Service: each new connection goes to the next gateway that is ready, kept ones are used
again, `Connection: close` is honoured. Nothing is tried twice but a connection that was refused, which the
Service of a gateway that is gone would have sent elsewhere.
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from rerank_api.keys import MintedKey
from soak.world import Gateway
from tests.rerank_gateway.harness import BODY

_ANSWER_SECONDS = 30


def rerank(key: MintedKey, *, documents: list[str] | None = None) -> bytes:
    """The panda request."""
    body = json.dumps({**BODY, **({"documents": documents} if documents else {})}).encode()
    return (
        f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.text}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


@dataclass
class Tally:
    """What became of requests: statuses, or how they failed; seconds of those that were answered 200."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(self.outcomes.values()) - self.outcomes["200"]


class Client:
    """Sends requests to whichever of `gateways` are ready."""

    def __init__(self, gateways: Callable[[], list[Gateway]]) -> None:
        self._gateways = gateways
        self._turn = itertools.count()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> str:
        """One request; its status, or the name of what went wrong."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = self._kept() or await self._connect()
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        except (OSError, asyncio.IncompleteReadError) as error:
            return type(error).__name__
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return head.split(b" ", 2)[1].decode()

    async def served(self, request: bytes) -> None:
        """Wait until a request is answered 200."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            while await self.ask(request) != "200":
                await asyncio.sleep(0.05)

    async def steadily(
        self, request: bytes, tally: Tally, *, per_second: float, until: asyncio.Event
    ) -> None:
        """Requests at a fixed rate, whatever becomes of the earlier ones, and wait for every answer."""

        async def one() -> None:
            began = time.perf_counter()
            outcome = await self.ask(request)
            tally.outcomes[outcome] += 1
            if outcome == "200":
                tally.seconds.append(time.perf_counter() - began)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if until.is_set():
                    break
                await asyncio.sleep(max(0.0, started + number / per_second - time.perf_counter()))
                group.create_task(one())

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            reader, writer = self._idle.pop(0)
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            ready = [gateway for gateway in self._gateways() if gateway.ready]
            if ready:
                gateway = ready[next(self._turn) % len(ready)]
                try:
                    return await asyncio.open_connection("127.0.0.1", gateway.port, limit=1 << 22)
                except ConnectionRefusedError:
                    gateway.ready = False
            await asyncio.sleep(0.01)
