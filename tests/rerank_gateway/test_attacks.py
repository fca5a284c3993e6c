"""Every attack of the corpus over a real socket: what the client sees, and what reaches a replica."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rerank_api import backend_token
from rerank_gateway import exchange, protocol
from rerank_gateway import gateway as gateway_module
from tests.rerank_gateway import attacks, objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MASTER, Running, running, slice_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTACKS = attacks.corpus()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def victim() -> AsyncIterator[tuple[Running, FakeEngine]]:
    """A gateway that is quick to lose patience, and its only replica."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "HEAD_SECONDS", 0.5)
        patch.setattr(exchange, "BODY_SECONDS", 0.5)
        patch.setattr(exchange, "_DROP_SECONDS", 0.2)
        patch.setattr(exchange, "_LINGER_SECONDS", 0.2)
        patch.setattr(gateway_module, "FIRST_IDLE_SECONDS", 0.2)
        patch.setattr(protocol, "FIRST_IDLE_SECONDS", 0.2)
        patch.setattr(protocol, "IDLE_SECONDS", 0.3)
        async with running() as gateway, FakeEngine(token=backend_token.token(MASTER, "default")) as engine:
            gateway.source.put(objects.model(), *slice_of([engine]))
            yield gateway, engine


async def test_the_corpus_is_large() -> None:
    assert len(ATTACKS) >= 200


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_gains_nothing(victim: tuple[Running, FakeEngine], name: str) -> None:
    gateway, engine = victim
    attack = ATTACKS[name]
    engine.seen.clear()
    came = await attacks.converse(gateway.port, attack.parts)
    statuses = attacks.statuses(came)
    assert statuses[0] in attack.first, came[:500]
    assert len(statuses) <= attack.answers
    assert 500 not in statuses
    assert len(engine.seen) <= attack.served
    assert len(engine.seen) == attack.served or attack.first != {200}
    for seen in engine.seen:
        attacks.assert_harmless(seen)
    next_one = attacks.statuses(await attacks.converse(gateway.port, (attacks.plain(attacks.CLOSE),)))
    assert next_one == [200]
