"""The pod's own HTTP server on port 8081: /livez, /readyz, /status, /drain. Up before anything else works."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from rerank_runtime.status import Status

PORT = 8081

Refresh = Callable[[], Awaitable[None]]
Drain = Callable[[], Awaitable[int]]


def create_app(
    status: Status, *, refresh: Refresh | None = None, drain: Drain | None = None
) -> web.Application:
    """The status application.

    Args:
        status: What is shown.
        refresh: Brings `status.in_flight` up to date before it is shown.
        drain: Stops taking requests, waits for those in flight and returns how many were left; None where
        there is
            nothing to drain. Answered to loopback peers only: from elsewhere it would be a way to stop a
            model.
    """

    async def livez(_request: web.Request) -> web.Response:
        return (
            web.Response(text="ok\n")
            if status.alive
            else web.Response(status=503, text=f"{status.message}\n")
        )

    async def readyz(_request: web.Request) -> web.Response:
        if status.ready:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"{status.phase} {status.reason}".rstrip() + "\n")

    async def show(_request: web.Request) -> web.Response:
        if refresh:
            await refresh()
        return web.json_response(status.as_json())

    async def start_drain(request: web.Request) -> web.Response:
        if drain is None:
            raise web.HTTPNotFound
        if not request.remote or not ipaddress.ip_address(request.remote).is_loopback:
            raise web.HTTPForbidden(text="only from inside the pod\n")
        return web.json_response({"inFlight": await drain()})

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/status", show)
    app.router.add_post("/drain", start_drain)
    return app


@asynccontextmanager
async def running(app: web.Application, port: int = PORT) -> AsyncIterator[int]:
    """Serve on all interfaces while the block runs; yields the port (0 chooses a free one)."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=False, shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, None, port)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
