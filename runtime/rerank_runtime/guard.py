"""ASGI middleware in vLLM's own server: `vllm serve --middleware rerank_runtime.guard.Guard`.

vLLM's `--api-key` guards some of its routes only. The guard stands before all of them: it lets pass a short
list of paths, only with the backend token of the namespace, counts what is in flight, and refuses new work
while draining. Bodies of work go through the intake (`rerank_runtime.intake`), which rebuilds them or refuses
them. One count for each API server process, of which the runtime starts one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rerank_runtime import intake, slim_answer
from rerank_runtime.intake import Admitted, Intake, IntakeSettings, Refused
from rerank_runtime.slim_answer import SlimSend

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Hex SHA-256 of the namespace's backend token. Absent only outside Kubernetes, where vLLM listens on
# loopback.
TOKEN_HASH = "RERANK_BACKEND_TOKEN_SHA256"  # noqa: S105 - a variable's name
# Plain token of this one start, known to pid 1 and to this process: for verification and draining.
INTERNAL_TOKEN = "RERANK_INTERNAL_TOKEN"  # noqa: S105 - a variable's name

STATE_PATH = "/_rerank/state"
DRAIN_PATH = "/_rerank/drain"
WORK = frozenset({("POST", "/v1/rerank")})
ALLOWED = WORK | {("GET", "/v1/models"), ("GET", "/metrics")}
INTERNAL = frozenset({("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/openapi.json")})

# Tells what was cut of a request, in the words of intake.Report.
TRUNCATED_HEADER = b"x-rerank-truncated"
# Tells the tokens of the query by itself, where vLLM reads it once for all documents of a request.
QUERY_TOKENS_HEADER = b"x-rerank-query-tokens"
# Tells what is served (rerank_runtime.identity).
PLAN_HEADER = b"x-rerank-plan"

# More than a gateway lets pass to begin with.
_MAX_BODY_BYTES = 64 * 2**20
# A body that is read on the event loop holds up everybody for a millisecond at most.
_MAX_LOOP_BYTES = 256 * 2**10
# Several, so that one request of megabytes does not hold up the others that must be tokenised.
_THREADS = 4
_DRAINING = (b"x-rerank-draining", b"true")
_FRAMING = (b"content-length", b"transfer-encoding")


class Guard:
    """The middleware. vLLM constructs it with the application that it wraps.

    Raises:
        ValueError, OSError: the environment lacks something, or what it names cannot be read. vLLM then does
            not start.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        token_hash = os.environ.get(TOKEN_HASH, "").strip().lower()
        internal = os.environ.get(INTERNAL_TOKEN, "")
        if token_hash and len(token_hash) != 64:
            raise ValueError(f"{TOKEN_HASH} is not a hex SHA-256")
        self._token_hash = token_hash
        self._internal_hash = _digest(internal.encode()) if internal else ""
        settings = os.environ.get(intake.SETTINGS, "")
        if not settings:
            raise ValueError(f"{intake.SETTINGS} is not set")
        told = IntakeSettings.from_json(Path(settings).read_text(encoding="utf-8"))
        self._intake = Intake(told)
        self._identity = [(PLAN_HEADER, told.identity.encode())] if told.identity else []
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="intake")
        self.in_flight = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, send)
        elif kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            # Refused before the handshake: uvicorn answers 403.
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = (scope["method"], scope["path"])
        if route == ("GET", "/health"):
            await self.app(scope, receive, send)
            return
        tokens = [value for name, value in scope["headers"] if name == b"authorization"]
        digest = _digest(tokens[0][7:]) if len(tokens) == 1 and tokens[0][:7].lower() == b"bearer " else ""
        if self._internal_hash and hmac.compare_digest(digest, self._internal_hash):
            await self._internal(route, scope, receive, send)
        elif self._token_hash and not hmac.compare_digest(digest, self._token_hash):
            await _refuse(send, 401, "a backend token is needed", (b"www-authenticate", b"Bearer"))
        elif route not in ALLOWED:
            await _refuse(send, 404, "no such path")
        elif route in WORK:
            await self._work(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.draining:
            await _refuse(send, 503, "this replica is draining", _DRAINING, (b"retry-after", b"1"))
            return
        self.in_flight += 1
        try:
            await self._take_in(scope, receive, send)
        finally:
            self.in_flight -= 1

    async def _take_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on as the intake rebuilds it, and tell in the answer what was cut."""
        body = await _read(receive)
        if body is None:
            return
        if len(body) > _MAX_BODY_BYTES:
            message = f"the body is larger than {_MAX_BODY_BYTES} bytes"
            await _refuse(send, 413, message, (b"connection", b"close"))
            return
        loop = asyncio.get_running_loop()
        if len(body) > _MAX_LOOP_BYTES:
            outcome = await loop.run_in_executor(self._threads, self._intake.whole, body)
        else:
            begun = self._intake.begin(body)
            outcome = await loop.run_in_executor(self._threads, begun) if callable(begun) else begun
        if isinstance(outcome, Refused):
            await _refuse(send, 400, outcome.message, kind="BadRequestError", param=outcome.param)
            return
        headers = [header for header in scope["headers"] if header[0] not in _FRAMING]
        headers.append((b"content-length", b"%d" % len(outcome.body)))
        told = [*self._identity, *_about(outcome)]
        rebuilt = dict(scope, headers=headers)
        if slim_answer.wanted(headers):
            send = SlimSend(send, self._threads, _MAX_LOOP_BYTES)
        await self.app(rebuilt, _replay(outcome.body, receive), _telling(send, told) if told else send)

    async def _internal(self, route: tuple[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        if route == ("POST", DRAIN_PATH):
            self.draining = True
            await _answer(send, 200, {"inFlight": self.in_flight, "draining": True})
        elif route == ("GET", STATE_PATH):
            await _answer(send, 200, {"inFlight": self.in_flight, "draining": self.draining})
        elif route in WORK:
            # Verification is pid 1's own: it is neither counted nor refused while draining.
            await self._take_in(scope, receive, send)
        elif route in INTERNAL:
            await self.app(scope, receive, send)
        else:
            await _refuse(send, 404, "no such path")


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None where the client left; more than _MAX_BODY_BYTES are not read to the end."""
    chunks: list[bytes] = []
    size = 0
    while size <= _MAX_BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if not message.get("more_body", False):
            break
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body once, and then what comes after it: the client's leaving."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


def _about(admitted: Admitted) -> list[tuple[bytes, bytes]]:
    """The headers about a request."""
    cut, query_tokens = admitted.report.header(), admitted.query_tokens
    return [
        *([(TRUNCATED_HEADER, cut.encode())] if cut else ()),
        *([(QUERY_TOKENS_HEADER, b"%d" % query_tokens)] if query_tokens is not None else ()),
    ]


def _telling(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    """A send that adds headers to the answer."""

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = dict(message, headers=[*message.get("headers", ()), *headers])
        await send(message)

    return tell


async def _refuse(
    send: Send,
    status: int,
    message: str,
    *headers: tuple[bytes, bytes],
    kind: str = "guard",
    param: str | None = None,
) -> None:
    # vLLM's shape.
    error = {"message": message, "type": kind, "param": param, "code": status}
    await _answer(send, status, {"error": error}, *headers)


async def _answer(send: Send, status: int, body: dict[str, Any], *headers: tuple[bytes, bytes]) -> None:
    content = json.dumps(body).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": content})
