"""A steady stream of requests while replicas come and go: none fails."""

import asyncio
from collections import Counter

import pytest

from rerank_api import backend_token
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MASTER, Running, slice_of, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def stream(gateway: Running, statuses: Counter[int], stop: asyncio.Event) -> None:
    while not stop.is_set():
        statuses[(await gateway.rerank()).status] += 1


async def started() -> FakeEngine:
    engine = FakeEngine(token=backend_token.token(MASTER, "default"))
    return await engine.__aenter__()


# Nothing can be done for a request whose only replica dies.
@pytest.mark.parametrize(("replicas", "how"), [(1, "drained"), (2, "drained"), (2, "killed")])
async def test_no_request_fails(empty: Running, replicas: int, how: str) -> None:
    empty.source.put(objects.model())
    engines = [await started() for _ in range(replicas)]
    empty.source.put(*slice_of(engines))
    statuses: Counter[int] = Counter()
    stop = asyncio.Event()
    clients = [asyncio.create_task(stream(empty, statuses, stop)) for _ in range(4)]
    for _ in range(6):
        old, new = engines.pop(0), await started()
        engines.append(new)
        if how == "drained":
            # As in a rollout: the old pod drains before its successor's slice is here.
            old.always = "drain"
            await asyncio.sleep(0.01)
            empty.source.put(*slice_of([new]))
            empty.source.remove(slice_of([old])[0])
        else:
            # As when a node dies: nobody tells before the requests fail.
            await old.stop()
            await asyncio.sleep(0.01)
            empty.source.remove(slice_of([old])[0])
            empty.source.put(*slice_of([new]))
        await until(lambda: bool(new.seen))  # noqa: B023 - awaited here
        await asyncio.sleep(0.1)  # those who wait for a successor look every 50 ms
        await old.stop()
    stop.set()
    await asyncio.gather(*clients)
    for engine in engines:
        await engine.stop()
    assert set(statuses) == {200}
    assert statuses[200] > 20
