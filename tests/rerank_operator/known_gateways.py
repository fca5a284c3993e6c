"""Gateways on loopback that the operator asks, without a DNS."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from rerank_operator.gateways import Gateways

HOSTS = ("127.0.0.2", "127.0.0.3")


class Known(Gateways):
    """A DNS that says what the test says."""

    known: frozenset[str]

    async def addresses(self) -> frozenset[str]:
        return self.known


def number_of(request: web.Request) -> int:
    """Which of the HOSTS was asked."""
    assert request.transport is not None
    return HOSTS.index(request.transport.get_extra_info("sockname")[0])


@asynccontextmanager
async def served(
    gateways: Known, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[None]:
    """Have all HOSTS answer so, and be known to `gateways`."""
    gateways.known = frozenset(HOSTS)
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    for host in HOSTS:
        await web.TCPSite(runner, host, gateways.port).start()
        gateways.port = runner.addresses[0][1]
    yield
    await gateways.close()
    await runner.cleanup()
