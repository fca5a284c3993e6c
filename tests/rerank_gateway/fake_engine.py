"""A replica as the gateway meets it: vLLM 0.32's /v1/rerank behind the guard and its intake, over a real
socket.

As strict as the stricter of the two: `top_n` and `max_tokens_per_doc` refuse null as vLLM does, a document is
a string as the intake wants it, errors have vLLM's shape. Documents that are too long are cut and told in a
header, or refused where `reject` is set; more than `max_documents` are refused. `query_once`: as a model of
embeddings reads it. A document's score is the
share of the query's words that it holds. `behave` makes the next requests misbehave in ways that a healthy
server never would, and `poison` kills it with the first request that holds that word.

With `step_tokens` it works in steps like vLLM's engine: so much at a time, first come, first served, and a
request is answered when all of it is done.
"""

import asyncio
import json
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Behaviour = Literal[
    "answer",
    "drain",  # 503 with the guard's draining header
    "busy",  # 503 of a full queue
    "fail",  # 500 with a stack trace
    "reset",  # cut the connection instead of an answer
    "reset_midway",  # cut it in the middle of the answer
    "hold",  # answer only when `release` is set
    "die",  # as a process that is killed: this connection and all others end, new ones are refused
    "nan",  # the 400 that vLLM gives for a NaN score
    "leak",  # a 400 that quotes an address
    "empty_results",
    "index_out_of_range",
    "not_json",
    "not_http",
    "wrong_report",  # of cut documents that the request did not have
]


class RerankRequest(BaseModel):
    """What the intake reads of a request; it drops unknown fields."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str | None = None
    query: str
    documents: list[str]
    top_n: int = Field(default=0, ge=0)
    max_tokens_per_query: int = Field(default=0, ge=0)
    max_tokens_per_doc: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the engine. `connection` counts connections from 0."""

    path: str
    headers: list[tuple[str, str]]
    body: dict[str, Any]
    connection: int


@dataclass
class _Work:
    """The tokens of a request that are still to be read."""

    left: int
    text: str
    finished: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeEngine:
    """Serves from `async with` on, at `host` and `port`. Words stand for tokens."""

    host: str = "127.0.0.1"
    served_name: str = "minilm"
    max_model_len: int = 512
    reject: bool = False
    max_documents: int | None = None
    guarded: bool = True  # False: a plain vLLM, which repeats the documents
    query_once: bool = False
    poison: str = ""
    step_tokens: int = 0
    step_seconds: float = 0.002
    steps: int = 0
    pace: asyncio.Semaphore | None = None  # where set, each step waits to be released
    read: set[str] = field(default_factory=set)  # first documents of requests that are done
    done: int = 0
    plan: str = ""
    token: str | None = None
    seen: list[Seen] = field(default_factory=list)
    behave: deque[Behaviour] = field(default_factory=deque)
    always: Behaviour = "answer"
    cut_reused: bool = False
    release: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: int = 0
    connections: int = 0
    open: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pending: deque[_Work] = deque()
        self._stepping: asyncio.Task[None] | None = None
        self._server = await asyncio.start_server(self._connection, self.host, 0, limit=2**26)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def alive(self) -> bool:
        return self._server.is_serving()

    async def stop(self) -> None:
        """Refuse new connections and cut the open ones."""
        self._server.close()
        self.release.set()
        if self._stepping is not None:
            self._stepping.cancel()
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        number = self.connections
        self.connections += 1
        self.open += 1
        try:
            for served in range(10**9):
                seen = await _read(reader, number)
                if served and self.cut_reused:
                    break
                self.seen.append(seen)
                if not await self._answer(seen, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _answer(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        behaviour = self.behave.popleft() if self.behave else self.always
        if behaviour == "die" or (self.poison and self.poison in str(seen.body)):
            await self.stop()
            return False
        if behaviour == "reset":
            return False
        if behaviour == "not_http":
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            await writer.drain()
            return False
        if behaviour == "hold" and not await self._held(reader, self.release.wait()):
            return False
        if self.step_tokens and not await self._worked(seen, reader):
            return False
        status, headers, body = self.respond(seen, behaviour)
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        if behaviour == "reset_midway":
            body = body[: len(body) // 2]
        writer.write(head.encode() + headers + b"\r\n" + body)
        await writer.drain()
        return behaviour != "reset_midway"

    async def _held(self, reader: asyncio.StreamReader, until: Coroutine[Any, Any, Any]) -> bool:
        """Wait for `until`; False when the client leaves first."""
        gone = asyncio.create_task(reader.read(1))
        released = asyncio.create_task(until)
        try:
            await asyncio.wait((gone, released), return_when=asyncio.FIRST_COMPLETED)
            if released.done():
                return True
            self.abandoned += 1
            return False
        finally:
            gone.cancel()
            released.cancel()
            await asyncio.wait((gone, released))

    async def _worked(self, seen: Seen, reader: asyncio.StreamReader) -> bool:
        """Wait until the engine's steps have come to it; what a client leaves behind is not worked on."""
        around = len(seen.body["query"].split()) + 3
        texts = seen.body["documents"]
        work = _Work(sum(len(text.split()) + around for text in texts), texts[0])
        self._pending.append(work)
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._step())
        if await self._held(reader, work.finished.wait()):
            return True
        work.left = 0
        return False

    async def _step(self) -> None:
        while self._pending:
            room, finished = self.step_tokens, []
            while self._pending and room:
                work = self._pending[0]
                taken = min(room, work.left)
                work.left -= taken
                room -= taken
                if not work.left:
                    finished.append(self._pending.popleft())
            self.done += self.step_tokens - room
            self.steps += 1
            await (self.pace.acquire() if self.pace else asyncio.sleep(self.step_seconds))
            for work in finished:
                self.read.add(work.text)
                work.finished.set()

    def respond(self, seen: Seen, behaviour: Behaviour) -> tuple[int, bytes, bytes]:
        """Status, extra header lines and body for a request."""
        guarded = dict(seen.headers).get("authorization", "").removeprefix("Bearer ")
        if self.token is not None and guarded != self.token:
            return 401, b"", b'{"error":"Unauthorized"}'
        if seen.path != "/v1/rerank":
            return 404, b"", b'{"detail":"Not Found"}'
        if behaviour == "drain":
            return 503, b"X-Rerank-Draining: true\r\n", _error(503, "draining")
        if behaviour == "busy":
            return 503, b"", _error(503, "queue full at 10.0.0.7:8000")
        if behaviour == "fail":
            return 500, b"", _error(500, 'Traceback (most recent call last):\n  File "/vllm/x.py"')
        if behaviour == "nan":
            return 400, b"", _error(400, "Out of range float values are not JSON compliant: nan")
        if behaviour == "leak":
            return 400, b"", _error(400, "refused by http://10.1.2.3:8000/v1 and [fd00::12:34]:8000")
        if behaviour == "not_json":
            return 200, b"", b"<html>"
        return self._rank(seen, behaviour)

    def _rank(self, seen: Seen, behaviour: Behaviour) -> tuple[int, bytes, bytes]:
        try:
            request = RerankRequest.model_validate(seen.body)
        except ValidationError as error:
            return 400, b"", _error(400, str(error.errors()))
        if request.model not in (None, self.served_name):
            return 404, b"", _error(404, f"The model `{request.model}` does not exist.", "model")
        documents = request.documents
        if not documents:
            return 400, b"", _error(400, "documents must be a list of strings, one at least.", "documents")
        if self.max_documents is not None and len(documents) > self.max_documents:
            message = f"documents holds {len(documents)} texts. This model takes {self.max_documents} at most"
            return 400, b"", _error(400, message, "documents")
        query, results, cut = request.query.lower().split(), [], []
        around = 0 if self.query_once else len(query) + 3
        tokens = len(query) if self.query_once else 0
        room = self.max_model_len - len(query) - 3
        wish = request.max_tokens_per_doc or self.max_model_len
        for index, document in enumerate(documents):
            words = document.lower().split()[: wish if wish < self.max_model_len else None]
            if len(words) > room and self.reject:
                message = f"documents[{index}] has {len(words)} tokens; {room} fit"
                return 400, b"", _error(400, message, f"documents[{index}]")
            words = words[:room]
            if len(words) < len(document.split()):
                cut.append(index)
            tokens += len(words) + around
            score = sum(word in words for word in query) / max(1, len(query))
            results.append(
                {
                    "index": index + (1000 if behaviour == "index_out_of_range" else 0),
                    "document": {"text": document, "multi_modal": None},
                    "relevance_score": score,
                }
            )
            if self.guarded and dict(seen.headers).get("x-rerank-documents") == "omit":
                del results[-1]["document"]
        results.sort(key=lambda result: -float(str(result["relevance_score"])))
        results = [] if behaviour == "empty_results" else results[: request.top_n or len(results)]
        answer = {
            "id": "score-1",
            "model": self.served_name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": results,
        }
        if behaviour == "wrong_report":
            cut = [len(documents)]
        return 200, self._told(cut, len(query)), json.dumps(answer).encode()

    def _told(self, cut: list[int], query: int) -> bytes:
        told = {
            "Truncated": f"{len(cut)};{','.join(map(str, cut[:100]))}" if cut else "",
            "Query-Tokens": str(query) if self.query_once else "",
            "Plan": self.plan,
        }
        return "".join(f"X-Rerank-{name}: {value}\r\n" for name, value in told.items() if value).encode()


async def _read(reader: asyncio.StreamReader, connection: int) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in head[1:-2])]
    body = await reader.readexactly(int(dict(headers).get("content-length", "0")))
    return Seen(head[0].split(" ")[1], headers, json.loads(body or b"{}"), connection)


def _error(code: int, message: str, param: str | None = None) -> bytes:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": code}
    return json.dumps({"error": error}).encode()
