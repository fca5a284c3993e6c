"""From the write that revokes a key to the last request that it was accepted for."""

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
        for number, key in enumerate(minted):
            made.api.put(objects.api_key(key, name=f"key-{number}"))
        client = Client(lambda: made.gateways)
        await client.served(rerank(minted[-1]))
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
    written = last = time.monotonic()
    if number % 2:
        made.api.put(body)
    else:
        made.api.delete(body)
    while time.monotonic() < written + _TIMEOUT:
        sent = time.monotonic()
        if await client.ask(request) != "200":
            return last - written
        last = sent
    return float("inf")
