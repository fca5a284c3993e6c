"""From the write that revokes a key to the last request that it was accepted for."""

import asyncio
import time

import uvloop

from rerank_api import keys
from soak.bound import Bound, percentile
from soak.client import Client, rerank
from soak.world import World, world
from tests.rerank_gateway import objects

_KEYS = 1000
_TIMEOUT = 10.0


def run(length: float) -> list[Bound]:
    """Every other key is deleted, the others disabled, while their clients ask on and on."""
    return uvloop.run(_run(round(_KEYS * length)))


async def _run(count: int) -> list[Bound]:
    minted = [keys.mint() for _ in range(count)]
    async with world(gateways=1, replicas=2) as made:
        *others, last = (objects.api_key(key, name=f"key-{number}") for number, key in enumerate(minted))
        await made.cluster.put(*others)
        await made.cluster.put(last)
        client = Client(lambda: made.gateways)
        await client.served(rerank(minted[-1]))  # the others were told before
        seconds = [await _revoked(made, client, number, key) for number, key in enumerate(minted)]
        client.close()
    return [
        Bound("keys revoked", count),
        Bound("revocation, p50", percentile(seconds, 0.5) * 1000, 100, "ms"),
        Bound("revocation, p99", percentile(seconds, 0.99) * 1000, 1000, "ms"),
        Bound("revocation, longest", max(seconds) * 1000, None, "ms"),
    ]


async def _revoked(made: World, client: Client, number: int, key: keys.MintedKey) -> float:
    request = rerank(key)
    if await client.ask(request) != "200":
        raise RuntimeError("a key that nobody has revoked was refused")
    body = objects.api_key(key, name=f"key-{number}", disabled=True)
    async with asyncio.TaskGroup() as group:
        write = made.cluster.put if number % 2 else made.cluster.delete
        group.create_task(write(body))
        return await _accepted(client, request)


async def _accepted(client: Client, request: bytes) -> float:
    """The seconds from now, just before the write, until the last request was sent that was accepted."""
    written = last = time.monotonic()
    while time.monotonic() < written + _TIMEOUT:
        sent = time.monotonic()
        if await client.ask(request) != "200":
            return last - written
        last = sent
    return float("inf")
