"""The corpus of attacks against the program itself: its own event loop, its own patience."""

import asyncio

import uvloop

from soak.bound import Bound
from soak.client import Client, rerank
from soak.world import world
from tests.rerank_gateway import attacks, objects
from tests.rerank_gateway.attacks import Attack
from tests.rerank_gateway.harness import MINTED

_AT_ONCE = 20
_SECONDS = 20.0  # a head and a body have 10


def run(_length: float) -> list[Bound]:
    """All of them, several at once."""
    return uvloop.run(_run(attacks.corpus()))


async def _run(corpus: dict[str, Attack]) -> list[Bound]:
    surprising: list[str] = []
    turn = asyncio.Semaphore(_AT_ONCE)
    async with world(gateways=1, replicas=1) as made:
        await made.cluster.put(objects.api_key(MINTED))
        client = Client(lambda: made.gateways)
        await client.served(rerank(MINTED))
        engine, port = made.engines[0], made.gateways[0].port
        engine.seen.clear()

        async def one(name: str, attack: Attack) -> None:
            async with turn:
                try:
                    came = attacks.statuses(await attacks.converse(port, attack.parts, seconds=_SECONDS))
                except TimeoutError:
                    came = []
                if not came or came[0] not in attack.first or 500 in came or len(came) > attack.answers:
                    surprising.append(f"{name}: {came}")

        await asyncio.gather(*(one(name, attack) for name, attack in corpus.items()))
        for seen in engine.seen:
            attacks.assert_harmless(seen)
        reached, may_reach = len(engine.seen), sum(attack.served for attack in corpus.values())
        await client.served(rerank(MINTED))
        client.close()
    print(*surprising, sep="\n", end="\n" if surprising else "")
    return [
        Bound("attacks", len(corpus)),
        Bound("answered otherwise than they should", len(surprising), 0),
        Bound("requests that reached a replica", reached, may_reach),
    ]
