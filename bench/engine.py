"""A replica that costs almost nothing and answers in vLLM's shape, without the documents where the runtime
would leave them out, with all of them as a plain vLLM does.

At once, to measure what a proxy costs; or paced, to measure how one schedules: a step of the paced engine
reads up to `--step-tokens` of the documents that came first, whosever they are, and takes `--step-seconds`,
as vLLM's do. It says nothing about scores.
"""

import argparse
import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import uvloop

_CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True)
class Prepared:
    """An answer, made once for each request that differs, and the tokens of each document."""

    answer: bytes
    tokens: list[int]


@dataclass(slots=True)
class Waiting:
    """A request whose documents are read one after another."""

    connection: "Connection"
    prepared: Prepared
    read: int = 0


def prepare(body: bytes, *, slim: bool) -> Prepared:
    fields = json.loads(body)
    query, documents = fields["query"], fields["documents"]
    results = [
        {
            "index": index,
            **({} if slim else {"document": {"text": text, "multi_modal": None}}),
            "relevance_score": 1 / (index + 1.7),
        }
        for index, text in enumerate(documents)
    ]
    tokens = [(len(query) + len(text)) // _CHARACTERS_PER_TOKEN + 1 for text in documents]
    top = fields.get("top_n") or len(results)
    total = sum(tokens)
    content = {
        "id": "score-1",
        "model": fields.get("model"),
        "usage": {"prompt_tokens": total, "total_tokens": total},
        "results": results[:top],
    }
    answer = json.dumps(content).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
    return Prepared(head.encode() + answer, tokens)


class Engine:
    """What all connections share."""

    def __init__(self, step_tokens: int, step_seconds: float) -> None:
        self._step_tokens = step_tokens
        self._step_seconds = step_seconds
        self._prepared: dict[tuple[int, bytes, bool], Prepared] = {}
        self._waiting: deque[Waiting] = deque()
        self._came = asyncio.Event()

    def ask(self, connection: "Connection", body: bytes, *, slim: bool) -> None:
        key = (len(body), body[-256:], slim)
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepared[key] = prepare(body, slim=slim)
        if self._step_seconds:
            self._waiting.append(Waiting(connection, prepared))
            self._came.set()
        else:
            connection.answer(prepared.answer)

    async def step(self) -> None:
        """Read documents for ever."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._waiting:
                self._came.clear()
                await self._came.wait()
            due = loop.time() + self._step_seconds
            ready = self._read()
            await asyncio.sleep(max(0.0, due - loop.time()))
            for each in ready:
                each.connection.answer(each.prepared.answer)

    def _read(self) -> list[Waiting]:
        room, ready = self._step_tokens, []
        while self._waiting and room > 0:
            first = self._waiting[0]
            if first.connection.gone:
                self._waiting.popleft()
                continue
            tokens = first.prepared.tokens
            while first.read < len(tokens) and room > 0:
                room -= tokens[first.read]
                first.read += 1
            if first.read == len(tokens):
                ready.append(self._waiting.popleft())
        return ready


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, engine: Engine) -> None:
        self.gone = False
        self._engine = engine
        self._buffer = bytearray()
        self._slim = False
        self._body = 0
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.gone = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._missing:
            head, separator, _ = bytes(self._buffer[:8192]).lower().partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"post "):  # somebody asks how it is
                self._buffer.clear()
                self.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                return
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            self._slim = b"\r\nx-rerank-documents: omit" in head
            self._body = len(head) + 4
            self._missing = self._body + length
        if len(self._buffer) >= self._missing:
            body = bytes(self._buffer[self._body : self._missing])
            self._buffer.clear()
            self._missing = 0
            self._engine.ask(self, body, slim=self._slim)

    def answer(self, answer: bytes) -> None:
        if not self.gone:
            self._transport.write(answer)


async def main(arguments: Any) -> None:
    """Serve for ever."""
    engine = Engine(arguments.step_tokens, arguments.step_seconds)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(engine), "127.0.0.1", arguments.port
    )
    await asyncio.gather(server.serve_forever(), engine.step())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--step-tokens", type=int, default=8192)
    parser.add_argument("--step-seconds", type=float, default=0.0)
    uvloop.run(main(parser.parse_args()))
