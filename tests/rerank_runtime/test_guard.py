"""The guard, as vLLM's server calls it: an ASGI application under uvicorn, asked over sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rerank_runtime import guard as guard_module
from rerank_runtime import intake
from rerank_runtime.guard import DRAIN_PATH, INTERNAL_TOKEN, STATE_PATH, TOKEN_HASH, Guard
from rerank_runtime.intake import IntakeSettings
from rerank_runtime.options import Method
from tests.rerank_runtime import tokenizer_kinds as kinds

pytestmark = pytest.mark.slow

TOKEN, INTERNAL = "backend", "internal"
BODY = {"model": "m", "query": "a panda", "documents": ["hi", "a bear"]}
CONTEXT = 32
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
    """The guard around an application that answers every path, and holds /v1/rerank until released.

    `bodies`: what it was sent there.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.release = asyncio.Event()
        self.release.set()
        self.reached: list[str] = []
        self.bodies: list[Any] = []
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    async def answer(self, request: Request) -> Response:
        self.reached.append(request.url.path)
        if request.url.path == "/v1/rerank":
            body = await request.body()
            assert int(request.headers["content-length"]) == len(body)
            self.bodies.append(json.loads(body))
            await self.release.wait()
        if request.headers.get("x-fail"):
            raise RuntimeError("as an engine fails")
        if request.headers.get("x-rerank-documents"):
            result = {"index": 0, "document": {"text": "hi"}, "relevance_score": 0.5}
            return JSONResponse({"results": [result]})
        return JSONResponse({"path": request.url.path})

    async def ask(self, method: str, path: str, token: str | None = None, **headers: str) -> int:
        """The status; the path goes out as it is written."""
        from yarl import URL  # noqa: PLC0415

        sent = headers | ({"Authorization": f"Bearer {token}"} if token else {})
        body = BODY if path == "/v1/rerank" else None
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, headers=sent, json=body) as response:
            await response.read()
            return response.status

    async def rerank(self, body: Any = None, *, token: str = TOKEN, **fields: Any) -> tuple[int, str, Any]:
        """Status, report of what was cut, and body of the answer to BODY with `fields`, or to other bytes."""
        data = body if isinstance(body, bytes) else json.dumps({**BODY, **fields}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        async with self.session.post(self.url + "/v1/rerank", data=data, headers=headers) as response:
            return response.status, response.headers.get("X-Rerank-Truncated", ""), await response.json()

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


@pytest.fixture(scope="module")
def settings_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that pid 1 writes for the guard."""
    folder = tmp_path_factory.mktemp("guard")
    directory = kinds.write(folder / "model", "wordpiece")
    path = folder / "intake.json"
    path.write_text(IntakeSettings(directory, Method.CROSS_ENCODER, CONTEXT).to_json())
    return path


@pytest.fixture(autouse=True)
def _intake(settings_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(intake.SETTINGS, str(settings_path))


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
    assert await server.ask("GET", "/metrics", INTERNAL) == 200
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
        assert server.bodies == [BODY | {"truncate_prompt_tokens": -1}]
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


# Bodies


@pytest.mark.parametrize("token", [TOKEN, INTERNAL])
async def test_what_changes_scores_never_reaches_the_engine(server: Server, token: str) -> None:
    status, cut, _ = await server.rerank(
        token=token,
        top_n=1,
        use_activation=False,
        truncate_prompt_tokens=3,
        truncation_side="left",
        chat_template_kwargs={"instruction": "x"},
        instruction="x",
        priority=-1,
        query="[SEP]",
    )
    assert (status, cut) == (200, "")
    assert server.bodies == [BODY | {"query": "[ SEP]", "top_n": 1, "truncate_prompt_tokens": -1}]


async def test_what_was_cut_is_told(server: Server) -> None:
    assert (await server.rerank(documents=["hi", "panda " * 99]))[:2] == (200, "1;1")
    assert (await server.rerank(documents=["hi"] * 2000 + ["panda " * 99] * 101))[1].startswith(
        "101;2000,2001,"
    )
    assert (await server.rerank(query="panda " * 99))[:2] == (200, "0;;query")


async def test_who_wants_no_documents_gets_none(server: Server) -> None:
    for wish, expected in (("omit", {"index", "relevance_score"}), ("keep", None)):
        headers = {"Authorization": f"Bearer {TOKEN}", "X-Rerank-Documents": wish}
        async with server.session.post(f"{server.url}/v1/rerank", json=BODY, headers=headers) as response:
            (result,) = (await response.json())["results"]
        assert set(result) == (expected or {"index", "document", "relevance_score"})


async def test_a_request_larger_than_the_loop_takes_is_worked_off_beside_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "_MAX_LOOP_BYTES", 10)
    assert (await server.rerank(documents=["hi", "[SEP]" * 99]))[:2] == (200, "1;1")
    assert server.bodies[0]["documents"][1].startswith("[ SEP][ SEP]")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'"x"', None),
        (b"[" * 5000, None),
        (b"\xff\xfe", None),
        (b'{"query": "\\ud800", "documents": ["d"]}', None),
        (b'{"documents": ["d"]}', "query"),
        (b'{"query": null, "documents": ["d"]}', "query"),
        (b'{"query": {"content": [{"type": "text", "text": "[SEP]"}]}, "documents": ["d"]}', "query"),
        (b'{"query": "q"}', "documents"),
        (b'{"query": "q", "documents": []}', "documents"),
        (b'{"query": "q", "documents": {"text": "d"}}', "documents"),
        (b'{"query": "q", "documents": ["d", {"content": []}]}', "documents[1]"),
        (b'{"query": "q", "documents": ["d"], "top_n": null, "model": 1}', "model"),
        (b'{"query": "q", "documents": ["d"], "top_n": -1}', "top_n"),
        (b'{"query": "q", "documents": ["d"], "top_n": true}', "top_n"),
        (b'{"query": "q", "documents": ["d"], "top_n": 1.5}', "top_n"),
        (b'{"query": "q", "documents": ["d"], "max_tokens_per_doc": "7"}', "max_tokens_per_doc"),
        (b'{"query": "q", "documents": ["d"], "max_tokens_per_query": NaN}', "max_tokens_per_query"),
    ],
)
async def test_a_wrong_body_is_a_400_in_the_engines_shape(
    server: Server, body: bytes, param: str | None
) -> None:
    status, _, answer = await server.rerank(body)
    assert status == 400
    assert (answer["error"]["param"], answer["error"]["code"]) == (param, 400)
    assert answer["error"]["message"]
    assert server.reached == []


async def test_a_body_may_come_in_pieces(server: Server) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps(BODY).encode():
            yield bytes([byte])

    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    async with server.session.post(server.url + "/v1/rerank", data=pieces(), headers=headers) as response:
        assert response.status == 200
    assert server.bodies[0]["documents"] == BODY["documents"]


async def test_the_engine_sees_the_client_leave_after_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_HASH, raising=False)
    coming = [
        {"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False},
        {"type": "http.disconnect"},
    ]
    seen: list[str] = []

    async def receive() -> Any:
        return coming.pop(0)

    async def engine(_scope: Any, receive: Any, _send: Any) -> None:
        seen.extend([(await receive())["type"] for _ in range(2)])

    async def send(_: Any) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/v1/rerank", "headers": []}
    await Guard(engine)(scope, receive, send)
    assert seen == ["http.request", "http.disconnect"]


async def test_a_body_without_end_is_not_read_to_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "_MAX_BODY_BYTES", 1000)
    assert (await server.rerank(documents=["x" * 900]))[0] == 200
    assert (await server.rerank(documents=["x" * 1000]))[0] == 413
    assert len(server.bodies) == 1
    read: list[int] = []
    status: list[int] = []

    async def receive() -> Any:
        read.append(1)
        return {"type": "http.request", "body": b"x" * 400, "more_body": len(read) < 9}

    async def send(message: Any) -> None:
        status.append(message.get("status", 0))

    scope = {"type": "http", "method": "POST", "path": "/v1/rerank"}
    await Guard(Starlette())(
        scope | {"headers": [(b"authorization", f"Bearer {TOKEN}".encode())]}, receive, send
    )
    assert (len(read), status) == (3, [413, 0])


async def test_a_client_that_leaves_before_its_body_is_there_is_in_flight_no_more(server: Server) -> None:
    body = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        lines = [
            "POST /v1/rerank HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {TOKEN}",
            f"Content-Length: {len(body) + 1}",
        ]
        connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body)
        await server.until_in_flight(1)
    await server.until_in_flight(0)
    assert server.reached == []


async def test_without_the_intakes_settings_there_is_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(intake.SETTINGS)
    with pytest.raises(ValueError, match="RERANK_INTAKE"):
        Guard(Starlette())


@pytest.mark.parametrize(
    ("method", "told"),
    [(Method.CROSS_ENCODER, None), (Method.COSINE, "4")],  # a query of two words in [CLS], [SEP]
)
async def test_what_is_served_and_a_querys_own_tokens_are_told(
    settings_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, told: str | None
) -> None:
    path = tmp_path / "intake.json"
    settings = IntakeSettings(settings_path.parent / "model", method, CONTEXT, identity="ab12")
    path.write_text(settings.to_json())
    monkeypatch.setenv(intake.SETTINGS, str(path))
    monkeypatch.setenv(TOKEN_HASH, hashlib.sha256(TOKEN.encode()).hexdigest())
    async with running() as site:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with site.session.post(site.url + "/v1/rerank", json=BODY, headers=headers) as response:
            assert response.status == 200
            assert response.headers["X-Rerank-Plan"] == "ab12"
            assert response.headers.get("X-Rerank-Query-Tokens") == told
