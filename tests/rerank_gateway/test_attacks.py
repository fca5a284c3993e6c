"""Every attack of the corpus over a real socket: what the client sees, and what reaches a replica."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rerank_api import backend_token
from rerank_gateway import exchange, protocol
from rerank_gateway import gateway as gateway_module
from tests.rerank_gateway import attacks, objects
from tests.rerank_gateway.attacks import CLOSED, MARK
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MASTER, MINTED, Running, running, slice_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTACKS = attacks.corpus()
HEADERS = {
    *("host", "content-type", "content-length", "authorization", "x-request-id"),
    "x-rerank-documents",
}
FIELDS = {"model", "query", "documents", "top_n", "max_tokens_per_doc"}
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def victim() -> AsyncIterator[tuple[Running, FakeEngine]]:
    """A gateway that is quick to lose patience, and its only replica."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "HEAD_SECONDS", 0.2)
        patch.setattr(exchange, "BODY_SECONDS", 0.2)
        patch.setattr(exchange, "_DROP_SECONDS", 0.2)
        patch.setattr(exchange, "_LINGER_SECONDS", 0.2)
        patch.setattr(gateway_module, "FIRST_IDLE_SECONDS", 0.2)
        patch.setattr(protocol, "FIRST_IDLE_SECONDS", 0.2)
        patch.setattr(protocol, "IDLE_SECONDS", 0.3)
        async with running() as gateway, FakeEngine(token=backend_token.token(MASTER, "default")) as engine:
            gateway.source.put(objects.model(), *slice_of([engine]))
            yield gateway, engine


async def converse(port: int, parts: tuple[bytes, ...]) -> bytes:
    """Send the parts and return all that comes until the gateway closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)
    except ConnectionError:
        pass
    came = b""
    try:
        while data := await asyncio.wait_for(reader.read(65536), 5):
            came += data
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return came


async def test_the_corpus_is_large() -> None:
    assert len(ATTACKS) >= 200


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_gains_nothing(victim: tuple[Running, FakeEngine], name: str) -> None:
    gateway, engine = victim
    attack = ATTACKS[name]
    engine.seen.clear()
    came = await converse(gateway.port, attack.parts)
    statuses = [int(status) for status in STATUS.findall(came)] or [CLOSED]
    assert statuses[0] in attack.first, came[:500]
    assert len(statuses) <= attack.answers
    assert 500 not in statuses
    assert len(engine.seen) <= attack.served
    assert len(engine.seen) == attack.served or attack.first != {200}
    for seen in engine.seen:
        names = [header for header, _ in seen.headers]
        assert seen.path == "/v1/rerank"
        assert set(names) <= HEADERS
        assert len(names) == len(set(names))
        assert set(seen.body) <= FIELDS
        assert MINTED.text not in str(seen)
        assert MARK not in str(seen)
        assert "victim" not in str(seen)
    assert (await gateway.rerank()).status == 200  # the next client is served
