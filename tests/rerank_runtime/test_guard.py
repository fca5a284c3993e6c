"""The guard, as vLLM's server calls it: an ASGI application under uvicorn, asked over sockets."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rerank_runtime.guard import DRAIN_PATH, INTERNAL_TOKEN, STATE_PATH, TOKEN_HASH, Guard

TOKEN, INTERNAL = "backend", "internal"
# Every path of vLLM 0.32.0's server with a pooling model, as its openapi.json listed them, and what is not
# listed.
VLLM_PATHS = [
    ("POST", "/classify"),
    ("POST", "/detokenize"),
    ("POST", "/invocations"),
    ("GET", "/kv_event_sources"),
    ("GET", "/load"),
    ("GET", "/metrics"),
    ("GET", "/ping"),
    ("POST", "/ping"),
    ("POST", "/pooling"),
    ("POST", "/rerank"),
    ("POST", "/score"),
    ("POST", "/tokenize"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/score"),
    ("POST", "/v1/systemone"),
    ("POST", "/v2/embed"),
    ("POST", "/v2/rerank"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", STATE_PATH),
    ("POST", DRAIN_PATH),
]
ADMITTED = {("GET", "/metrics"), ("GET", "/v1/models"), ("POST", "/v1/rerank")}
BYPASSES = [
    ("POST", "/v1/rerank/"),
    ("POST", "//v1/rerank"),
    ("POST", "/V1/rerank"),
    ("GET", "/health/../score"),
    ("POST", "/health"),
    ("HEAD", "/health"),
    ("GET", "/health/"),
    ("GET", "/metrics/"),
    ("GET", "/score?x=/health"),
]


class Server:
    """The guard around an application that answers every path, and holds /v1/rerank until released."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.release = asyncio.Event()
        self.release.set()
        self.reached: list[str] = []
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    async def answer(self, request: Request) -> Response:
        self.reached.append(request.url.path)
        if request.url.path == "/v1/rerank":
            await self.release.wait()
        if request.headers.get("x-fail"):
            raise RuntimeError("as an engine fails")
        return JSONResponse({"path": request.url.path})

    async def ask(self, method: str, path: str, token: str | None = None, **headers: str) -> int:
        """The status; the path goes out as it is written."""
        from yarl import URL  # noqa: PLC0415

        sent = headers | ({"Authorization": f"Bearer {token}"} if token else {})
        async with self.session.request(method, URL(self.url + path, encoded=True), headers=sent) as response:
            await response.read()
            return response.status

    async def state(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {INTERNAL}"}
        async with self.session.get(self.url + STATE_PATH, headers=headers) as response:
            body: dict[str, Any] = await response.json()
            return body

    async def until_in_flight(self, count: int) -> None:
        async with asyncio.timeout(10):
            while True:
                if (await self.state())["inFlight"] == count:
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    config = uvicorn.Config(lambda *_: None, port=0, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    site = Server(sock.getsockname()[1])
    methods = ["GET", "POST", "HEAD"]
    config.app = Guard(Starlette(routes=[Route("/{path:path}", site.answer, methods=methods)]))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        async with asyncio.timeout(10):
            while True:
                if server.started:
                    break
                await asyncio.sleep(0.01)
        yield site
    finally:
        site.release.set()
        await site.session.close()
        server.should_exit = True
        await task
        sock.close()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setenv(TOKEN_HASH, hashlib.sha256(TOKEN.encode()).hexdigest())
    monkeypatch.setenv(INTERNAL_TOKEN, INTERNAL)
    async with running() as site:
        yield site


async def test_health_needs_no_token(server: Server) -> None:
    assert await server.ask("GET", "/health") == 200


async def test_every_other_path_needs_the_token(server: Server) -> None:
    for token in (None, "wrong", hashlib.sha256(TOKEN.encode()).hexdigest()):
        answers = {route: await server.ask(*route, token) for route in [*VLLM_PATHS, *BYPASSES]}
        assert answers == dict.fromkeys(answers, 401)
    assert server.reached == []


async def test_the_token_opens_three_paths(server: Server) -> None:
    answers = {route: await server.ask(*route, TOKEN) for route in [*VLLM_PATHS, *BYPASSES]}
    assert {route for route, status in answers.items() if status == 200} == ADMITTED
    assert {status for route, status in answers.items() if route not in ADMITTED} == {404}
    assert sorted(server.reached) == sorted(path for _, path in ADMITTED)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic backend",
        f"Bearer  {TOKEN}x",
        hashlib.sha256(b"x").hexdigest(),
    ],
)
async def test_other_headers_are_no_token(server: Server, header: str) -> None:
    headers = {"Authorization": header}
    async with server.session.post(server.url + "/v1/rerank", headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_two_authorizations_are_refused(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    authorization = f"Authorization: Bearer {TOKEN}\r\n"
    writer.write(
        f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{authorization * 2}Connection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 401")


async def test_the_internal_token_opens_what_verification_needs(server: Server) -> None:
    assert await server.ask("GET", "/openapi.json", INTERNAL) == 200
    assert await server.ask("POST", "/v1/rerank", INTERNAL) == 200
    assert await server.ask("POST", "/v1/embeddings", INTERNAL) == 404


async def test_requests_in_flight_are_counted(server: Server) -> None:
    server.release.clear()
    running_requests = [asyncio.create_task(server.ask("POST", "/v1/rerank", TOKEN)) for _ in range(3)]
    await server.until_in_flight(3)
    assert await server.ask("GET", "/metrics", TOKEN) == 200
    server.release.set()
    assert await asyncio.gather(*running_requests) == [200, 200, 200]
    assert await server.state() == {"inFlight": 0, "draining": False}


async def test_a_request_that_fails_or_is_given_up_is_in_flight_no_more(server: Server) -> None:
    assert await server.ask("POST", "/v1/rerank", TOKEN, **{"X-Fail": "1"}) == 500
    server.release.clear()
    given_up = asyncio.create_task(server.ask("POST", "/v1/rerank", TOKEN))
    await server.until_in_flight(1)
    given_up.cancel()
    server.release.set()
    await server.until_in_flight(0)


async def test_draining_refuses_new_work_and_lets_the_old_finish(server: Server) -> None:
    server.release.clear()
    old = asyncio.create_task(server.ask("POST", "/v1/rerank", TOKEN))
    await server.until_in_flight(1)
    assert await server.ask("POST", DRAIN_PATH, INTERNAL) == 200
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with server.session.post(server.url + "/v1/rerank", headers=headers) as response:
        assert response.status == 503
        assert response.headers["X-Rerank-Draining"] == "true"
    assert await server.ask("GET", "/metrics", TOKEN) == 200
    assert await server.state() == {"inFlight": 1, "draining": True}
    server.release.set()
    assert await old == 200
    assert await server.state() == {"inFlight": 0, "draining": True}


async def test_without_a_hash_the_paths_are_still_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_HASH, raising=False)
    monkeypatch.setenv(INTERNAL_TOKEN, INTERNAL)
    async with running() as server:
        assert await server.ask("POST", "/v1/rerank") == 200
        assert await server.ask("POST", "/score") == 404
        assert await server.ask("POST", DRAIN_PATH) == 404


async def test_websockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_HASH, raising=False)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def reached(*_: Any) -> None:
        raise AssertionError

    async def receive() -> Any:
        raise AssertionError

    await Guard(reached)({"type": "websocket", "path": "/v1/realtime"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("value", ["short", "x" * 63])
def test_a_hash_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(TOKEN_HASH, value)
    with pytest.raises(ValueError, match="SHA-256"):
        Guard(Starlette())
