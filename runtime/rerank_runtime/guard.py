"""ASGI middleware in vLLM's own server: `vllm serve --middleware rerank_runtime.guard.Guard`.

vLLM's `--api-key` guards some of its routes only. The guard stands before all of them: it lets pass a short
list of paths, only with the backend token of the namespace, counts what is in flight, and refuses new work
while draining. It never looks at a body. One count for each API server process, of which the runtime starts
one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

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
INTERNAL = frozenset({("POST", "/v1/rerank"), ("GET", "/v1/models"), ("GET", "/openapi.json")})

_DRAINING = (b"x-rerank-draining", b"true")


class Guard:
    """The middleware. vLLM constructs it with the application that it wraps."""

    def __init__(self, app: App) -> None:
        self.app = app
        token_hash = os.environ.get(TOKEN_HASH, "").strip().lower()
        internal = os.environ.get(INTERNAL_TOKEN, "")
        if token_hash and len(token_hash) != 64:
            raise ValueError(f"{TOKEN_HASH} is not a hex SHA-256")
        self._token_hash = token_hash
        self._internal_hash = _digest(internal.encode()) if internal else ""
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
            await self.app(scope, receive, send)
        finally:
            self.in_flight -= 1

    async def _internal(self, route: tuple[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        if route == ("POST", DRAIN_PATH):
            self.draining = True
            await _answer(send, 200, {"inFlight": self.in_flight, "draining": True})
        elif route == ("GET", STATE_PATH):
            await _answer(send, 200, {"inFlight": self.in_flight, "draining": self.draining})
        elif route in INTERNAL:
            # Verification is pid 1's own: it is neither counted nor refused.
            await self.app(scope, receive, send)
        else:
            await _refuse(send, 404, "no such path")


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


async def _refuse(send: Send, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
    error = {"message": message, "type": "guard", "param": None, "code": status}
    await _answer(send, status, {"error": error}, *headers)


async def _answer(send: Send, status: int, body: dict[str, Any], *headers: tuple[bytes, bytes]) -> None:
    content = json.dumps(body).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": content})
