"""What raw sockets can do to the gateway: broken heads, smuggling, slowness, early refusals."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from rerank_gateway import exchange, protocol
from rerank_gateway.protocol import Connection
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import BODY, MINTED, Running, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = json.dumps(BODY).encode()


def request(
    *lines: str,
    body: bytes = JSON,
    first: str = "POST /v1/rerank HTTP/1.1",
    host: str = "Host: x",
    length: bool = True,
    key: bool = True,
    end: str = "\r\n",
    close: bool = True,
) -> bytes:
    """A request, right unless told otherwise."""
    head = [first, host, "Content-Type: application/json", *lines]
    head += [f"Authorization: Bearer {MINTED.text}"] if key else []
    head += [f"Content-Length: {len(body)}"] if length else []
    head += ["Connection: close"] if close else []
    return (end.join(line for line in head if line) + end * 2).encode() + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


async def test_a_right_request_is_served(gateway: Running) -> None:
    assert status_of(await gateway.raw(request())) == 200


CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(JSON), JSON)
BROKEN = {
    "no host": request(host=""),
    "empty host": request(host="Host: "),
    "two hosts": request("Host: y"),
    "two authorizations": request("Authorization: Bearer x"),
    "two keys": request("X-API-Key: x"),
    "two content types": request("Content-Type: application/json"),
    "two lengths": request(f"Content-Length: {len(JSON)}"),
    "two different lengths": request("Content-Length: 1"),
    "length and chunked": request("Transfer-Encoding: chunked", body=CHUNKED),
    "chunked twice": request("Transfer-Encoding: chunked, chunked", body=CHUNKED, length=False),
    "gzip and chunked": request("Transfer-Encoding: gzip, chunked", body=CHUNKED, length=False),
    "identity": request("Transfer-Encoding: identity", body=CHUNKED, length=False),
    "obscured chunked": request("Transfer-Encoding: xchunked", body=CHUNKED, length=False),
    "space before the colon": request("Transfer-Encoding : chunked"),
    "negative length": request("Content-Length: -1", length=False),
    "signed length": request(f"Content-Length: +{len(JSON)}", length=False),
    "hexadecimal length": request("Content-Length: 0x10", length=False),
    "bare line feeds": request(end="\n"),
    "folded header": request("X-A: b\r\n c"),
    "null byte in a header": request("X-A: b\0c"),
    "header without a colon": request("nonsense"),
    "version 9": request(first="POST /v1/rerank HTTP/9.9"),
    "no method": request(first="/v1/rerank HTTP/1.1"),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "bad chunk size": request("Transfer-Encoding: chunked", body=b"zz\r\n", length=False),
    "negative chunk size": request("Transfer-Encoding: chunked", body=b"-1\r\n", length=False),
    "long chunk": request("Transfer-Encoding: chunked", body=b"2\r\nabc\r\n0\r\n\r\n", length=False),
    "body too short for its length": request(body=JSON[:-1]),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_request_reaches_no_engine(gateway: Running, engine: FakeEngine, case: str) -> None:
    answer = await gateway.raw(BROKEN[case])
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert error_of(answer)["message"]
    assert engine.seen == []


async def test_nonsense_behind_a_request_is_not_answered_in_its_place(
    gateway: Running, engine: FakeEngine
) -> None:
    engine.always = "hold"
    _, writer = opened = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request(close=False))
    await until(lambda: len(engine.seen) == 1)
    writer.write(b"nonsense\r\n\r\n")
    assert await asyncio.wait_for(opened[0].read(), 5) == b""
    await until(lambda: engine.abandoned == 1)
    writer.close()


async def test_version_0_9_is_not_spoken(gateway: Running) -> None:
    assert status_of(await gateway.raw(request(first="POST /v1/rerank"))) == 505


async def test_what_follows_a_body_is_not_smuggled(gateway: Running, engine: FakeEngine) -> None:
    hidden = request(key=False)
    answer = await gateway.raw(request(close=False) + hidden)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert status_of(answer) == 200
    assert b"HTTP/1.1 401 " in answer
    assert len(engine.seen) == 1


@pytest.mark.parametrize("parts", [False, True])
async def test_an_offered_upgrade_is_ignored(gateway: Running, engine: FakeEngine, parts: bool) -> None:
    # Java's HttpClient offers h2c with every first request.
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA")
    chunked = request(*offer, "Transfer-Encoding: chunked", body=CHUNKED, length=False, close=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for whole in (request(*offer, close=False), chunked, request(close=False)):
        for part in (whole[:-100], whole[-100:]) if parts else (whole,):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert status_of(head) == 200
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
    assert [seen.body for seen in engine.seen] == [BODY] * 3


async def test_an_offered_upgrade_smuggles_nothing(gateway: Running, engine: FakeEngine) -> None:
    hidden = request()
    offer = ("Connection: Upgrade", "Upgrade: h2c")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    whole = request(*offer, body=hidden)
    for part in (whole[: -len(hidden)], hidden):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.02)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert error_of(answer)["code"] == "invalid_json"
    assert engine.seen == []
    writer.close()


@pytest.mark.parametrize("whole", [True, False])
async def test_a_huge_head_is_refused(gateway: Running, whole: bool) -> None:
    huge = request("X-A: " + "a" * 40_000)
    answer = await gateway.raw(huge if whole else huge[:30_000])
    assert status_of(answer) == 431
    assert error_of(answer)["code"] == "head_too_large"


async def test_a_large_path_counts_too(gateway: Running) -> None:
    assert status_of(await gateway.raw(request(first=f"GET /{'a' * 17_000} HTTP/1.1"))) == 431


async def test_a_declared_length_over_the_limit_is_refused_unread(gateway: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request("Content-Length: 10485761", body=b"", length=False, close=False))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert status_of(head) == 413
    assert b"connection: close" in head.lower()
    writer.close()


async def test_a_chunked_body_over_the_limit_is_refused_before_its_end(gateway: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
    writer.write(request("Transfer-Encoding: chunked", body=chunk * 11, length=False, close=False))
    assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)) == 413
    writer.transport.abort()


async def test_a_connection_survives_an_early_refusal(gateway: Running) -> None:
    """A pooled client whose key is wrong must not see its next call fail."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for key, status in ((False, 401), (True, 200)):
        whole = request(key=key, close=False)
        writer.write(whole[:-20])
        await writer.drain()
        await asyncio.sleep(0.02)  # the head is judged before the body is there
        writer.write(whole[-20:])
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert status_of(head) == status
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()


async def test_a_refusal_before_a_large_body_can_be_read(gateway: Running) -> None:
    """The client is still sending when it is refused: it must read the answer, not a reset."""
    body = b" " * (8 << 20)
    answer = await gateway.raw(request(key=False, body=body, close=False))
    assert status_of(answer) == 401
    assert b"connection: close" in answer.lower()


async def test_a_client_that_asks_first_sends_no_body_in_vain(gateway: Running) -> None:
    refused = await gateway.raw(request("Expect: 100-continue", key=False, body=b""))
    assert status_of(refused) == 401
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    whole = request("Expect: 100-continue")
    writer.write(whole[: -len(JSON)])
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(JSON)
    assert status_of(await reader.read()) == 200
    writer.close()


async def test_a_slow_body_is_cut(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.2)
    answer = await gateway.raw(request()[:-1])
    assert status_of(answer) == 408
    assert error_of(answer)["code"] == "body_too_slow"


async def test_a_slow_head_is_cut(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    answer = await gateway.raw(b"POST /v1/rer")
    assert status_of(answer) == 408
    assert await gateway.raw(b"") == b""  # and a silent connection is closed without a word


async def test_a_head_that_came_while_the_gateway_was_busy_is_served(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop of libuv runs timers before it reads: what came in time may still be in the socket then."""
    made: list[Connection] = []
    connection_made = Connection.connection_made

    def remember(self: Connection, transport: Any) -> None:
        made.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", remember)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    await until(lambda: bool(made))
    writer.write(request())
    made[0]._head_too_slow()
    assert status_of(await asyncio.wait_for(reader.read(), 5)) == 200
    writer.close()


async def test_a_dribbled_second_head_is_cut(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request(close=False))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"POST ")
    answer = await asyncio.wait_for(reader.read(), 5)
    assert b"HTTP/1.1 408 " in answer
    writer.close()


async def test_a_client_gone_in_the_middle_of_its_body_leaves_nothing(
    gateway: Running, engine: FakeEngine
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request()[:-5])
    await writer.drain()
    writer.transport.abort()
    in_flight = gateway.gateway._metrics.in_flight
    await until(lambda: in_flight._value.get() == 0)
    assert engine.seen == []


TRAILERS = {
    "a key": f"Authorization: Bearer {MINTED.text}",
    "a request id": "X-Request-Id: from-the-trailer",
    "a second host": "Host: y",
}


@pytest.mark.parametrize("trailer", TRAILERS)
async def test_a_trailer_is_no_header(gateway: Running, trailer: str) -> None:
    body = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(JSON), JSON, TRAILERS[trailer].encode())
    key = trailer != "a key"
    answer = await gateway.raw(request("Transfer-Encoding: chunked", body=body, length=False, key=key))
    assert status_of(answer) == (200 if key else 401)
    assert b"from-the-trailer" not in answer


@pytest.mark.parametrize("flood", ["trailers", "one trailer", "an extension", "extensions"])
async def test_a_chunked_body_of_nothing_but_framing_is_cut(gateway: Running, flood: str) -> None:
    parts = {
        "trailers": b"0\r\n" + b"a: b\r\n" * 5000,
        "one trailer": b"0\r\na: " + b"b" * 50_000,
        "an extension": b"1;" + b"a" * 50_000,
        "extensions": (b"1;" + b"a" * 100 + b"\r\n \r\n") * 500,
    }
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request("Transfer-Encoding: chunked", body=b"1\r\n \r\n", length=False, close=False))
    await asyncio.sleep(0.02)
    writer.write(parts[flood])
    answer = await asyncio.wait_for(reader.read(), 5)
    assert status_of(answer) == 400
    assert error_of(answer)["code"] == "invalid_http"
    writer.close()


async def test_small_chunks_are_fine(gateway: Running) -> None:
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in JSON + b" " * 20_000) + b"0\r\n\r\n"
    answer = await gateway.raw(request("Transfer-Encoding: chunked", body=body, length=False))
    assert status_of(answer) == 200


async def test_a_client_may_pipeline_so_much_and_no_more(gateway: Running, engine: FakeEngine) -> None:
    answer = await gateway.raw(request(close=False) * 20 + request())
    assert answer.count(b"HTTP/1.1 200 ") == 21
    with contextlib.suppress(ConnectionResetError):
        assert await gateway.raw(request(close=False) * 500) == b""
    assert len(engine.seen) <= 21 + 1


LONG = json.dumps({**BODY, "documents": ["panda " * 1000] * 1600}).encode()  # more than sockets buffer


@pytest.mark.parametrize("close", [True, False])
async def test_an_answer_that_nobody_reads_is_given_up(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, close: bool
) -> None:
    monkeypatch.setattr(protocol, "_SOCKET_FILLS_SECONDS", 0.1)
    monkeypatch.setattr(protocol, "ANSWER_SECONDS", 0.2)
    in_flight = gateway.gateway._metrics.in_flight
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
    writer.write(request(body=LONG, close=close))
    await until(lambda: in_flight._value.get() == 1)
    await until(lambda: in_flight._value.get() == 0)
    assert gateway.gateway._in_flight.bytes == 0
    writer.transport.abort()


async def test_bytes_in_flight_are_bounded(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    in_flight = gateway.gateway._in_flight
    monkeypatch.setattr(in_flight, "_max_bytes", 2000)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request(body=b"{" * 1500, close=False)[:-1])
    await until(lambda: in_flight.bytes == 1500)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (1500, b" " * 1500)
    for refused in (
        request("Content-Length: 1500", "Expect: 100-continue", body=b"", length=False),
        request("Transfer-Encoding: chunked", body=chunked, length=False),
    ):
        answer = await gateway.raw(refused)
        assert status_of(answer) == 503
        assert error_of(answer)["code"] == "too_many_bytes"
        assert b"retry-after: 1\r\n" in answer
    writer.write(b"{")
    assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)) == 400
    await until(lambda: in_flight.bytes == 0)
    assert status_of(await gateway.raw(request())) == 200
    writer.close()
