"""What counts as an operator that does not work, and that it is told."""

import asyncio

import pytest
from aiohttp import ClientSession

from rerank_operator.handlers import MODEL, Key
from rerank_operator.health import Health, Metrics
from rerank_operator.queue import KeyedQueue
from rerank_operator.watchdog import CHECK_SECONDS, STUCK_SECONDS, Watchdog
from rerank_operator.watches import DEAD_SECONDS, Watches
from rerank_operator.workers import LOOK_DEADLINE_SECONDS
from tests.rerank_gateway.virtual_time import VirtualLoop

KEY: Key = (MODEL, "team", "minilm")


def test_a_watch_or_a_worker_that_does_not_go_on_is_noticed_soon() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        queue: KeyedQueue[Key] = KeyedQueue()
        names = {"/api/v1/pods": "pods", "/api/v1/services": "services"}
        silent = Watchdog(watches=Watches(names, clock=loop.time), queue=queue)
        assert silent.fault() == ""
        assert await silent.until_fault() == "no sign of life of the watch of pods, services"
        assert DEAD_SECONDS < loop.time() <= DEAD_SECONDS + CHECK_SECONDS

        queue.add(KEY)
        await queue.take()
        started = loop.time()
        stuck = Watchdog(watches=Watches({}, clock=loop.time), queue=queue)
        await asyncio.sleep(LOOK_DEADLINE_SECONDS)
        assert stuck.fault() == "", "a look may take so long"
        assert await stuck.until_fault() == "a worker is stuck on ModelDeployment team minilm"
        assert STUCK_SECONDS < loop.time() - started <= STUCK_SECONDS + CHECK_SECONDS
        queue.done(KEY)
        assert stuck.fault() == ""

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("fault", ["", "a worker is stuck"])
async def test_probes_and_metrics(fault: str) -> None:
    metrics = Metrics()
    metrics.watches.ages = lambda: {"team/pods": 7.0}
    health = Health(metrics=metrics, unready="waiting", fault=lambda: fault)
    lag = asyncio.create_task(metrics.measure_loop_lag())
    runner = await health.start(0)
    try:
        port = runner.addresses[0][1]
        async with ClientSession(f"http://127.0.0.1:{port}") as client:

            async def ask(path: str) -> tuple[int, str]:
                async with client.get(path) as response:
                    return response.status, (await response.text()).strip()

            assert await ask("/livez") == ((503, fault) if fault else (200, "ok"))
            assert await ask("/readyz") == (503, "waiting")
            health.unready = ""
            assert await ask("/readyz") == (200, "ok")
            await asyncio.sleep(0.3)
            _, text = await ask("/metrics")
            assert 'rerank_operator_watch_age_seconds{watch="team/pods"} 7.0' in text
            (count,) = [line for line in text.splitlines() if "loop_lag_seconds_count" in line]
            assert float(count.split()[-1]) >= 1
    finally:
        lag.cancel()
        await runner.cleanup()
