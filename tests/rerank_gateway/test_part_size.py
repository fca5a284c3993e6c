"""How much a replica is sent at once, by how soon it answers."""

import asyncio

import pytest

from rerank_gateway.part_size import STEP_DOCUMENTS, Most, PartSize
from tests.rerank_gateway.test_dispatcher import Held

STEP = 8192


def test_parts_grow_while_they_come_back_soon_and_are_one_step_after_one_that_did_not() -> None:
    size = PartSize(STEP)
    grown = []
    for _ in range(5):
        size.answered(size.tokens, 0.01)
        grown.append(size.steps)
    assert grown == [2, 4, 8, 8, 8]
    size.answered(size.tokens, 0.02)
    assert size.steps == 8
    size.answered(1, 0.021)
    assert size.steps == 1


def test_small_requests_show_nothing() -> None:
    size = PartSize(STEP)
    size.answered(STEP // 2, 0.001)
    assert size.steps == 1


@pytest.mark.parametrize(
    ("tokens", "replicas", "steps"),
    [(STEP, 1, 1), (STEP + 1, 1, 2), (31 * STEP, 1, 8), (31 * STEP, 4, 8), (16 * STEP, 4, 4), (STEP, 0, 1)],
)
def test_no_replica_is_left_without_a_part(tokens: int, replicas: int, steps: int) -> None:
    size = PartSize(STEP)
    for _ in range(3):
        size.answered(size.tokens, 0.0)
    assert size.of(tokens, replicas) == Most(steps * STEP, steps * STEP_DOCUMENTS)


async def test_a_replica_that_is_fast_is_given_more_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank_gateway.part_size._SECONDS", 60.0)  # fast is what answers at all
    held = Held()  # a part is two steps of its engine
    assert held.dispatcher.most(1000) == Most(50)
    held.release.set()
    for _ in range(3):
        await held.ask()
    assert held.dispatcher.most(1000) == Most(200, 128)
    held.release.clear()
    asked = [held.ask() for _ in range(20)]
    await asyncio.sleep(0)
    assert len(held.asked) == 3 + 4  # two parts of four steps
    held.release.set()
    await asyncio.gather(*asked)
    assert held.is_idle()
