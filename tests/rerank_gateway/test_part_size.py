"""How much a replica is sent at once, by how fast it is."""

import asyncio

import pytest

from rerank_gateway import part_size
from rerank_gateway.part_size import Most
from tests.rerank_gateway.test_dispatcher import Held

STEP = 8192


@pytest.mark.parametrize(
    ("rate", "steps"),
    [
        (None, 1),  # nobody knows yet
        (STEP / 0.05, 1),  # a step takes 50 ms: a newcomer waits for two
        (2 * STEP / 0.01, 2),
        (7.9 * STEP / 0.01, 7),
        (1000 * STEP / 0.01, 8),
    ],
)
def test_a_part_is_one_step_or_what_takes_ten_milliseconds(rate: float | None, steps: int) -> None:
    assert part_size.steps_at_once(rate, STEP) == steps


@pytest.mark.parametrize(
    ("tokens", "replicas", "steps"),
    [(STEP, 1, 1), (STEP + 1, 1, 2), (31 * STEP, 1, 8), (31 * STEP, 4, 8), (16 * STEP, 4, 4), (STEP, 0, 1)],
)
def test_no_replica_is_left_without_a_part(tokens: int, replicas: int, steps: int) -> None:
    assert part_size.of(tokens, replicas, 8, STEP) == Most(steps * STEP, steps * part_size.STEP_DOCUMENTS)


async def test_a_fast_replica_is_given_more_at_a_time() -> None:
    held = Held()  # its steps are of half a part
    dispatcher = held.dispatcher
    assert dispatcher.most(1000) == Most(50, 32)
    asked = [held.ask() for _ in range(20)]
    await asyncio.sleep(0)
    assert len(held.asked) == 1
    for second in range(3):
        dispatcher.throughput.done(50_000, 1, second)
    assert dispatcher.most(1000) == Most(400, 256)
    dispatcher.pump()
    await asyncio.sleep(0)
    assert len(held.asked) == 8  # two parts of eight steps
    held.release.set()
    await asyncio.gather(*asked)
    assert held.is_idle()
