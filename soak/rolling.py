"""A steady stream of requests while gateways and replicas are replaced one after another, or die."""

import asyncio
from functools import partial

import uvloop

from rerank_api import keys
from soak.bound import Bound, percentile
from soak.client import Client, Tally, rerank
from soak.world import World, world
from tests.rerank_gateway import objects

_RESTARTS = 20
_PER_SECOND = 200.0
_DRAIN_SECONDS = 3
_KILL_EVERY_SECONDS = 10.0
_TELL_SECONDS = 1.0  # from a node's death until the API server tells


def gateways(length: float) -> list[Bound]:
    """Two gateways, each replaced by a new one that is ready before the old one is told to stop."""
    return uvloop.run(_gateways(round(_RESTARTS * length)))


def replicas(length: float) -> list[Bound]:
    """Two replicas, replaced as in a rollout of the model: the old one drains while its successor is new."""
    return uvloop.run(_replicas(round(_RESTARTS * length)))


def killed_replicas(length: float) -> list[Bound]:
    """Three replicas of which one dies every ten seconds, untold."""
    return uvloop.run(_killed(round(6 * 10 * length)))


class _Load:
    """200 requests a second for as long as the block lasts."""

    def __init__(self, made: World) -> None:
        self.tally = Tally()
        self._made = made
        self._key = keys.mint()
        self._client = Client(lambda: made.gateways)
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Tally:
        await self._made.cluster.put(objects.api_key(self._key))
        request = rerank(self._key)
        for gateway in self._made.gateways:
            await Client(partial(list, (gateway,))).served(request)
        self._task = asyncio.create_task(
            self._client.steadily(request, self.tally, per_second=_PER_SECOND, until=self._stop)
        )
        return self.tally

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(1)
        self._stop.set()
        await self._task
        self._client.close()


async def _gateways(restarts: int) -> list[Bound]:
    seconds = []
    async with (
        world(gateways=2, replicas=2, RERANK_DRAIN_SECONDS=str(_DRAIN_SECONDS)) as made,
        _Load(made) as tally,
    ):
        for _ in range(restarts):
            old = made.gateways[0]
            await made.start_gateway()
            old.terminate()
            seconds.append(await old.has_ended())
            made.forget(old)
    return [
        Bound("gateways replaced", restarts),
        *_told(tally, 0),
        Bound("longest stop of a gateway", max(seconds), _DRAIN_SECONDS + 2, "s"),
    ]


async def _replicas(restarts: int) -> list[Bound]:
    async with world(gateways=1, replicas=2) as made, _Load(made) as tally:
        for _ in range(restarts):
            old = made.engines[0]
            await made.start_engine()
            old.always = "drain"
            await asyncio.sleep(0.5)
            await made.withdraw(old)
            await asyncio.sleep(1.5)
            await old.stop()
    return [Bound("replicas replaced", restarts), *_told(tally, 0)]


async def _killed(deaths: int) -> list[Bound]:
    async with world(gateways=1, replicas=3) as made, _Load(made) as tally:
        for _ in range(deaths):
            await asyncio.sleep(_KILL_EVERY_SECONDS - _TELL_SECONDS)
            victim = made.engines[0]
            await victim.stop()
            await asyncio.sleep(_TELL_SECONDS)
            await made.withdraw(victim)
            await made.start_engine()
    total = sum(tally.outcomes.values())
    return [Bound("replicas killed", deaths), *_told(tally, total // 10_000)]


def _told(tally: Tally, most: float) -> list[Bound]:
    if tally.failed:
        print(f"outcomes: {dict(tally.outcomes)}")
    return [
        Bound("requests", sum(tally.outcomes.values())),
        Bound("failed", tally.failed, most),
        Bound("p50", percentile(tally.seconds, 0.5) * 1000, None, "ms"),
        Bound("p99", percentile(tally.seconds, 0.99) * 1000, None, "ms"),
    ]
