"""The HTTP client against servers that answer in every way that HTTP allows, and in some that it does not."""

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from rerank_gateway import http_client
from rerank_gateway.backend import InvalidAnswerError, UnreachableError
from rerank_gateway.http_client import HttpClient
from rerank_gateway.records import Address
from tests.rerank_gateway.harness import until

NAMES = b"X-Request-Id: 1-1\r\n"
BODY = b'{"a": 1}'
NEVER = math.inf


class Server:
    """Answers each request with the next of `answers`; an empty one cuts the connection."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head + await reader.readexactly(len(BODY)))
                answer = self.answers.pop(0)
                for part in answer.split(b"|"):  # parts arrive apart
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.002)
                if not answer:
                    break
        self.open -= 1
        writer.close()


@contextlib.asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[tuple[Server, HttpClient, Address]]:
    server = Server(list(answers))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    client = HttpClient()
    try:
        yield server, client, Address(*listening.sockets[0].getsockname()[:2])
    finally:
        client.close()
        listening.close()
        await until(lambda: server.open == 0)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, b"hi"),
        (b"HTTP/1.1 200 OK\r\nContent-|Length: 2\r\n\r|\nh|i", 200, b"hi"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n|1\r\ni\r\n0\r\n\r\n", 200, b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"hi"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n|" + OK, 200, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", 503, b""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
    ],
)
async def test_answers_of_every_form(answer: bytes, status: int, body: bytes) -> None:
    async with serving(answer, OK) as (_, client, address):
        first = await client.rerank(address, BODY, "t", NAMES, NEVER)
        assert (first.status, first.body) == (status, body)
        assert (await client.rerank(address, BODY, "t", NAMES, NEVER)).body == b"hi"


async def test_the_request_is_complete_and_holds_nothing_else() -> None:
    async with serving(OK, OK) as (server, client, address):
        await client.rerank(address, BODY, "secret", NAMES, NEVER)
        await client.rerank(address, BODY, None, NAMES, NEVER)
        host = b"Host: 127.0.0.1:%d\r\n" % address.port
        rest = NAMES + b"Content-Type: application/json\r\nContent-Length: 8\r\n\r\n" + BODY
        start = b"POST /v1/rerank HTTP/1.1\r\n" + host + b"X-Rerank-Documents: omit\r\n"
        assert server.requests == [start + b"Authorization: Bearer secret\r\n" + rest, start + rest]
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), 2),
        (OK.replace(b"1.1", b"1.0"), 2),
        (OK, 1),
    ],
)
async def test_when_a_connection_is_kept(answer: bytes, connections: int) -> None:
    async with serving(answer, OK) as (server, client, address):
        await client.rerank(address, BODY, None, NAMES, NEVER)
        await client.rerank(address, BODY, None, NAMES, NEVER)
        assert server.connections == connections


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\x16\x03\x01"]
)
async def test_what_is_not_http(answer: bytes) -> None:
    async with serving(answer) as (_, client, address):
        with pytest.raises(InvalidAnswerError):
            await client.rerank(address, BODY, None, NAMES, NEVER)


async def test_an_answer_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_MAX_ANSWER_BYTES", 10)
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b"a" * 50) as (_, client, address):
        with pytest.raises(InvalidAnswerError, match="too large"):
            await client.rerank(address, BODY, None, NAMES, NEVER)


async def test_a_new_connection_that_breaks_is_not_stale() -> None:
    async with serving(b"") as (_, client, address):
        with pytest.raises(UnreachableError) as caught:
            await client.rerank(address, BODY, None, NAMES, NEVER)
        assert not caught.value.stale


async def test_a_reused_connection_that_breaks_is_stale() -> None:
    async with serving(OK, b"", OK) as (server, client, address):
        await client.rerank(address, BODY, None, NAMES, NEVER)
        with pytest.raises(UnreachableError) as caught:
            await client.rerank(address, BODY, None, NAMES, NEVER)
        assert caught.value.stale
        await client.rerank(address, BODY, None, NAMES, NEVER)
        assert server.connections == 2


async def test_a_reused_connection_that_breaks_later_is_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica had the request: it may have been killed by it."""
    monkeypatch.setattr(http_client, "_STALE_SECONDS", 0)
    async with serving(OK, b"") as (_, client, address):
        await client.rerank(address, BODY, None, NAMES, NEVER)
        with pytest.raises(UnreachableError) as caught:
            await client.rerank(address, BODY, None, NAMES, NEVER)
        assert not caught.value.stale


async def test_the_idle_siblings_of_a_stale_connection_are_not_tried() -> None:
    async with serving(OK, OK, b"", OK) as (server, client, address):
        await asyncio.gather(*(client.rerank(address, BODY, None, NAMES, NEVER) for _ in range(2)))
        assert server.open == 2
        with pytest.raises(UnreachableError):
            await client.rerank(address, BODY, None, NAMES, NEVER)
        await client.rerank(address, BODY, None, NAMES, NEVER)
        assert server.connections == 3


async def test_nobody_listens() -> None:
    async with serving() as (_, client, address):
        pass
    with pytest.raises(UnreachableError) as caught:
        await client.rerank(address, BODY, None, NAMES, NEVER)
    assert not caught.value.stale


async def test_draining_is_told_apart_from_busy() -> None:
    busy = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
    draining = busy.replace(b"\r\n\r\n", b"\r\nX-Rerank-Draining: true\r\n\r\n")
    scored = OK.replace(b"\r\n\r\n", b"\r\nX-Rerank-Draining: true\r\n\r\n")
    async with serving(draining, busy, scored) as (server, client, address):
        with pytest.raises(UnreachableError) as caught:
            await client.rerank(address, BODY, None, NAMES, NEVER)
        assert caught.value.draining
        assert (await client.rerank(address, BODY, None, NAMES, NEVER)).status == 503
        assert (await client.rerank(address, BODY, None, NAMES, NEVER)).body == b"hi"
        assert server.connections == 1


@pytest.mark.parametrize("why", ["forgotten", "idle", "closed"])
async def test_when_idle_connections_are_closed(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "idle":
        monkeypatch.setattr(http_client, "_IDLE_SECONDS", 0.05)
    ends: dict[str, Callable[[HttpClient, Address], None]] = {
        "forgotten": lambda client, address: client.forget(address),
        "idle": lambda _client, _address: None,
        "closed": lambda client, _address: client.close(),
    }
    async with serving(OK, OK) as (server, client, address):
        await client.rerank(address, BODY, None, NAMES, NEVER)
        assert server.open == 1
        ends[why](client, address)
        await until(lambda: server.open == 0)
        await client.rerank(address, BODY, None, NAMES, NEVER)
        assert server.connections == 2


async def test_a_cancelled_call_closes_its_connection() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n|" * 500) as (server, client, address):
        call = asyncio.create_task(client.rerank(address, BODY, None, NAMES, NEVER))
        await until(lambda: server.open == 1)
        call.cancel()
        await until(lambda: server.open == 0)


async def test_an_answer_that_is_late_is_not_waited_for_and_closes_its_connection() -> None:
    async with serving(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b"|x" * 500) as (
        server,
        client,
        address,
    ):
        await client.rerank(address, BODY, None, NAMES, NEVER)
        with pytest.raises(TimeoutError):
            await client.rerank(address, BODY, None, NAMES, asyncio.get_running_loop().time() + 0.05)
        await until(lambda: server.open == 0)


async def test_a_connection_that_comes_too_late_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_CONNECT_SECONDS", 60)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        address = Address(*full.getsockname())
        for _ in range(2):  # nobody accepts them, so who comes next hears nothing
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(address)
        late = loop.time() + 0.05
        with pytest.raises(TimeoutError):
            await HttpClient().rerank(address, BODY, None, NAMES, late)
        assert loop.time() < late + 30


async def test_words_that_nobody_asked_for_end_a_connection() -> None:
    async with serving(OK + b"|HTTP/1.1 200 OK\r\n", OK) as (server, client, address):
        await client.rerank(address, BODY, None, NAMES, NEVER)
        await until(lambda: server.open == 0)
        assert (await client.rerank(address, BODY, None, NAMES, NEVER)).body == b"hi"
