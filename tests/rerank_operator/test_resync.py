"""The resync: what no event told is found all the same, without a burst. Half-hours in milliseconds."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from rerank_operator import workers
from rerank_operator.api_error import ApiError
from rerank_operator.cluster import Cluster
from rerank_operator.handlers import API_KEY, MODEL, Key
from rerank_operator.health import Metrics
from rerank_operator.queue import KeyedQueue
from rerank_operator.resources import Object, Resource
from rerank_operator.resync import EVERY_SECONDS, SPREAD_SECONDS, Resync
from tests.rerank_gateway.virtual_time import VirtualLoop

LOOK_SECONDS = 0.05


class World(Cluster):
    """Knows which resources there are, and runs workers that note what they look at, and when."""

    def __init__(self, *there: Key, namespaces: tuple[str, ...] = ()) -> None:
        super().__init__(api=None)  # type: ignore[arg-type]  # nothing is connected
        self.there = set(there)
        self.away: set[tuple[str, str | None]] = set()
        self.looks: list[tuple[float, Key]] = []
        self.queue: KeyedQueue[Key] = KeyedQueue()
        resync = Resync(api=self, queue=self.queue, namespaces=namespaces)
        reconcilers = {kind: self._reconcile(kind) for kind in (MODEL, API_KEY)}
        self.tasks = [asyncio.create_task(resync.run())]
        self.tasks += [
            asyncio.create_task(workers.work(self.queue, reconcilers, Metrics(), resync))
            for _ in range(workers.WORKERS)
        ]

    def _reconcile(self, kind: str) -> workers.Reconcile:
        async def look(namespace: str, name: str) -> float | None:
            await asyncio.sleep(LOOK_SECONDS)
            self.looks.append((asyncio.get_running_loop().time(), (kind, namespace, name)))
            return None

        return look

    async def pages(
        self, resource: Resource, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Object]:
        for kind, place, name in sorted(self.there):
            if kind == resource.kind and namespace in {None, place}:
                yield {"metadata": {"namespace": place, "name": name}}
        if (resource.kind, namespace) in self.away:
            raise ApiError(0, "Unreachable", "")

    async def looked_at(self, seconds: float) -> Counter[Key]:
        """How often each was looked at within the next so many seconds."""
        self.looks.clear()
        await asyncio.sleep(seconds)
        return Counter(key for _, key in self.looks)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario)


def test_everything_is_looked_at_once_each_time_and_never_in_a_burst() -> None:
    async def scenario() -> None:
        there = {(kind, "team", f"r{n}") for kind in (MODEL, API_KEY) for n in range(200)}
        world = World(*there)
        assert await world.looked_at(EVERY_SECONDS) == Counter()
        for _ in range(2):
            started = asyncio.get_running_loop().time()
            assert await world.looked_at(EVERY_SECONDS) == Counter(there)
            tenths = Counter(int((at - started) / SPREAD_SECONDS * 10) for at, _ in world.looks)
            assert max(tenths.values()) < 2 * len(there) / 10
        await world.close()

    run(scenario())


def test_lost_events_are_made_good() -> None:
    """Of a new resource, and of one that is gone: that one is looked at once, and then it is forgotten."""

    async def scenario() -> None:
        gone, stays, new = (API_KEY, "team", "gone"), (API_KEY, "team", "stays"), (API_KEY, "team", "new")
        world = World(gone, stays)
        for key in (gone, stays):
            world.queue.add(key)
        await asyncio.sleep(1)
        world.there = {stays, new}
        assert await world.looked_at(EVERY_SECONDS + SPREAD_SECONDS) == Counter((gone, stays, new))
        assert await world.looked_at(EVERY_SECONDS) == Counter((stays, new))
        world.there.add(gone)  # another one of that name
        assert await world.looked_at(EVERY_SECONDS) == Counter((gone, stays, new))
        world.there.remove(gone)
        assert await world.looked_at(EVERY_SECONDS) == Counter((gone, stays, new))
        await world.close()

    run(scenario())


def test_what_cannot_be_listed_keeps_nothing_else_waiting() -> None:
    async def scenario() -> None:
        keys = [(kind, place, "r") for kind in (MODEL, API_KEY) for place in ("a", "b")]
        world = World(*keys, namespaces=("a", "b"))
        for key in keys:
            world.queue.add(key)
        await asyncio.sleep(1)
        world.away = {(MODEL, "a")}
        world.there.remove((MODEL, "a", "r"))
        looked = await world.looked_at(EVERY_SECONDS + SPREAD_SECONDS)
        assert looked == Counter(key for key in keys if key != (MODEL, "a", "r"))
        world.away.clear()  # and what went meanwhile is not forgotten
        assert await world.looked_at(EVERY_SECONDS) == Counter(keys)
        await world.close()

    run(scenario())
