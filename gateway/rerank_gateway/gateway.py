"""The running gateway: its parts put together, its two servers, and how it stops."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

import structlog
import uvicorn

from rerank_gateway import app, load, openapi, peers
from rerank_gateway.admission import Admission
from rerank_gateway.app import InternalApp, Lifecycle, Page, PublicApp
from rerank_gateway.auth import Authenticator
from rerank_gateway.config import Settings
from rerank_gateway.consumption import Consumption
from rerank_gateway.exchange import App
from rerank_gateway.http_client import HttpClient
from rerank_gateway.in_flight import InFlight
from rerank_gateway.metrics import Metrics
from rerank_gateway.models import Models
from rerank_gateway.peers import Peers
from rerank_gateway.protocol import FIRST_IDLE_SECONDS, Connection
from rerank_gateway.records import ObjectId
from rerank_gateway.rerank import Rerank
from rerank_gateway.scheduler import Scheduler
from rerank_gateway.source import Source
from rerank_gateway.state import State
from rerank_gateway.tokens import BackendTokens
from rerank_gateway.usage import Usage

_BACKLOG: Final = 2048
_SWEEP_SECONDS: Final = 60.0

_log = structlog.get_logger("rerank_gateway")


class Gateway:
    """One gateway on two ports. `run` serves until `stop` is called.

    Args:
        settings: see there.
        tokens: for the model pods.
        source: makes the source of objects that fills the given state.
        version: shown in `/openapi.json`.
    """

    def __init__(
        self, settings: Settings, tokens: BackendTokens, source: Callable[[State], Source], *, version: str
    ) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._backend = HttpClient()
        self.state = State(
            removed=lambda replica: self._backend.forget(replica.address),
            changed=self._model_changed,
        )
        self.scheduler = Scheduler(settings, self.state, self._backend, tokens, self._metrics)
        self._source = source(self.state)
        self._metrics.watch(self._source.ages)
        self._lifecycle = Lifecycle()
        consumption = Consumption(self._lifecycle.process)
        self._peer_client = HttpClient()
        self._peers = Peers(self.state.peers, consumption, self._peer_client, self._metrics)
        self._usage = Usage(self._lifecycle.process, told_apart=settings.metrics_keys)
        self._metrics.of_keys(self._usage)
        self._in_flight = InFlight(settings.max_in_flight_bytes)
        self._metrics.in_flight_bytes.set_function(lambda: self._in_flight.bytes)
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        auth = Authenticator(self.state, self._source, settings.auth_max_staleness_seconds)
        admission = Admission(consumption, self._peers)
        rerank = Rerank(settings, self.state, auth, admission, self.scheduler)
        routes = app.routes(rerank, Models(self.state, auth), openapi.documentation(version))
        self._public = PublicApp(
            routes,
            self._metrics,
            self._usage,
            self._lifecycle,
            self._in_flight,
            log_sample=settings.access_log_sample,
        )
        pages: dict[str, Page] = {
            "/usage": lambda query: self._usage.page(query, self._lifecycle.phase),
            "/load": lambda _: load.page(self._lifecycle.process, self.state, self.scheduler.loads()),
            peers.PATH: admission.page,
        }
        self._internal = InternalApp(
            self._source, auth, self._metrics, self._lifecycle, pages, unasked=self._peers.unasked
        )

    async def run(self, public: socket.socket, internal: socket.socket) -> None:
        """Serve on two listening sockets; return when stopped and every request is answered.

        Raises:
            Exception: the source of objects, or the exchange with other gateways, failed for good, which
            neither ever should.
        """
        servers = [
            _server(self._internal, grace_seconds=1),
            _server(self._public, grace_seconds=self._settings.request_timeout_seconds),
        ]
        internal_server, public_server = servers
        source = asyncio.create_task(self._source.run())
        source.add_done_callback(lambda _: self.stop(at_once=True))
        exchanging = asyncio.create_task(self._peers.run(lambda: not self._source.unsynced()))
        exchanging.add_done_callback(lambda _: self.stop(at_once=True))
        beside = [
            asyncio.create_task(self._metrics.measure_loop_lag()),
            asyncio.create_task(self._sweep_usage()),
        ]
        serving = [
            asyncio.create_task(internal_server.serve([internal])),
            asyncio.create_task(public_server.serve([public])),
        ]
        _log.info("serving", port=public.getsockname()[1], internal_port=internal.getsockname()[1])
        try:
            await self._stop.wait()
            self._lifecycle.draining = True
            _log.info("draining", seconds=self._settings.drain_seconds)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), self._settings.drain_seconds)
        finally:
            public_server.should_exit = True
            await serving[1]
            self._lifecycle.stopped = True
            await self._save_usage()
            internal_server.should_exit = True
            await serving[0]
            for task in beside:
                task.cancel()
            for task in (source, exchanging):
                if task.done():
                    task.result()
                task.cancel()
            await asyncio.wait([source, exchanging, *beside])
            self._backend.close()
            self._peer_client.close()
        _log.info("stopped")

    async def _save_usage(self) -> None:
        """Wait for the operator to say that the last counts are saved, unless told not to."""
        saved = asyncio.create_task(self._usage.saved())
        hurry = asyncio.create_task(self._at_once.wait())
        await asyncio.wait(
            [saved, hurry], timeout=self._settings.usage_wait_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not saved.done() and self._settings.usage_wait_seconds:
            _log.warning("usage_not_saved", seconds=self._settings.usage_wait_seconds)
        saved.cancel()
        hurry.cancel()

    async def _sweep_usage(self) -> None:
        """Run for ever beside the servers."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._usage.sweep(self.state.exists, time.monotonic())

    def _model_changed(self, model: ObjectId) -> None:
        self.scheduler.changed(model)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop, `at_once` without waiting for proxies to notice. Requests in flight are finished."""
        self._stop.set()
        if at_once:
            self._at_once.set()


def listen(port: int, host: str = "") -> socket.socket:
    """A listening socket on `host`, or on every address, IPv6 included where there is IPv6.

    Args:
        port: 0 for any free one.
        host: an IPv4 address, or nothing.

    Raises:
        OSError: the port is taken or not allowed.
    """
    listening = (None if host else _dual_stack(port)) or socket.create_server((host, port), backlog=_BACKLOG)
    # Accepted connections inherit it. asyncio sets it only on sockets that it made itself, and head and
    # body of an answer are two writes: without it the body waits for the client's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _dual_stack(port: int) -> socket.socket | None:
    if not socket.has_dualstack_ipv6():
        return None
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    except OSError:
        return None  # IPv6 may be there and still be switched off


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: `main.py` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(application: App, *, grace_seconds: float) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=FIRST_IDLE_SECONDS,
        timeout_graceful_shutdown=int(grace_seconds) + 1,
    )
    return _Server(config)
