"""The API server is away for ten minutes under load: nobody notices, and what happened then counts soon."""

import asyncio
import time
from functools import partial

import uvloop

from rerank_api import keys
from soak.bound import Bound, percentile
from soak.client import Client, Tally, rerank
from soak.world import Gateway, world
from tests.rerank_gateway import objects

_MINUTES = 10.0
_PER_SECOND = 200.0
_AROUND_SECONDS = 5.0
_SYNC_SECONDS = 15.0


def run(length: float) -> list[Bound]:
    """A key is deleted and one is made while the gateways cannot hear of it: by an API server that they do
    not know, which has gone too before theirs comes back.
    """
    return uvloop.run(_run(_MINUTES * length))


async def _run(minutes: float) -> list[Bound]:
    steady, deleted, made_anew = (keys.mint() for _ in range(3))
    async with world(gateways=2, replicas=2) as made:
        await made.cluster.put(objects.api_key(steady, name="steady"))
        await made.cluster.put(objects.api_key(deleted, name="deleted"))
        client, tally, stop = Client(lambda: made.gateways), Tally(), asyncio.Event()
        for each in _each(made.gateways):
            await each.served(rerank(deleted))
        load = asyncio.create_task(client.steadily(rerank(steady), tally, per_second=_PER_SECOND, until=stop))
        await asyncio.sleep(_AROUND_SECONDS)
        unheard = made.cluster.elsewhere()
        await made.cluster.kill()
        gone = time.monotonic()
        await unheard.start()
        await unheard.delete(objects.api_key(deleted, name="deleted"))
        await unheard.put(objects.api_key(made_anew, name="new"))
        await unheard.kill()
        await asyncio.sleep(gone + 60 * minutes - time.monotonic())
        still = await client.ask(rerank(deleted))
        await made.cluster.start()
        back = time.monotonic()
        in_sync = [
            await _in_sync(gateway_client, deleted, made_anew) for gateway_client in _each(made.gateways)
        ]
        sync_seconds = time.monotonic() - back
        await asyncio.sleep(_AROUND_SECONDS)
        stop.set()
        await load
        client.close()
    return [
        Bound("API server away", minutes, None, "min"),
        Bound("requests", sum(tally.outcomes.values())),
        Bound("failed", tally.failed, 0),
        Bound("p99 of the others", percentile(tally.seconds, 0.99) * 1000, None, "ms"),
        Bound("last known key refused meanwhile", float(still != "200"), 0),
        Bound("in sync after it is back", sync_seconds if all(in_sync) else float("inf"), _SYNC_SECONDS, "s"),
    ]


def _each(gateways: list[Gateway]) -> list[Client]:
    return [Client(partial(list, (gateway,))) for gateway in gateways]


async def _in_sync(client: Client, deleted: keys.MintedKey, made_anew: keys.MintedKey) -> bool:
    end = time.monotonic() + 4 * _SYNC_SECONDS
    while time.monotonic() < end:
        if (await client.ask(rerank(deleted)), await client.ask(rerank(made_anew))) == ("401", "200"):
            client.close()
            return True
        await asyncio.sleep(0.02)
    return False
