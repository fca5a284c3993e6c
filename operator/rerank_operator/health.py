"""The operator's own port: /livez, /readyz, /metrics. Started by `main`."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from rerank_operator.model_metrics import ModelMetrics

_LAG_INTERVAL_SECONDS: Final = 0.25
_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
# For answers that are on their way when the operator stops.
_LAST_ANSWERS_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)  # a registry keeps collectors by identity
class WatchAges(Collector):
    """The age of each watch, read when scraped. None but on the leader, which watches."""

    ages: Callable[[], dict[str, float]] = dict

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "rerank_operator_watch_age_seconds",
            "Seconds since events of a kind (in a namespace) could last arrive; up to 30 is usual.",
            labels=("watch",),
        )
        for watch, seconds in self.ages().items():
            family.add_metric((watch,), seconds)
        yield family


@dataclass(slots=True)
class Metrics:
    """What the operator counts. Times are in seconds."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    looks: Counter = field(init=False)
    look_seconds: Histogram = field(init=False)
    writes: Counter = field(init=False)
    waiting: Gauge = field(init=False)
    leading: Gauge = field(init=False)
    gateways: Gauge = field(init=False)
    silent_gateways: Gauge = field(init=False)
    usage_waiting: Gauge = field(init=False)
    loop_lag: Histogram = field(init=False)
    models: ModelMetrics = field(default_factory=ModelMetrics)
    watches: WatchAges = field(default_factory=WatchAges)

    def __post_init__(self) -> None:
        self.looks = Counter(
            "rerank_operator_reconciles_total",
            "Reconciliations, by kind and result.",
            ["kind", "result"],
            registry=self.registry,
        )
        self.look_seconds = Histogram(
            "rerank_operator_reconcile_seconds",
            "How long a reconciliation took.",
            ["kind"],
            registry=self.registry,
        )
        self.writes = Counter(
            "rerank_operator_writes_total",
            "Writes that the API server carried out, by resource. None while nothing changes. What keys used"
            " (apikeys/usage) and what autoscaling decides (modeldeployments/autoscaling) are counted apart.",
            ["resource"],
            registry=self.registry,
        )
        self.waiting = Gauge(
            "rerank_operator_queue_length", "Resources that wait for a worker.", registry=self.registry
        )
        self.leading = Gauge("rerank_operator_leading", "1 on the leader.", registry=self.registry)
        self.gateways = Gauge(
            "rerank_operator_gateways", "Gateways that answer the operator.", registry=self.registry
        )
        self.silent_gateways = Gauge(
            "rerank_operator_gateways_silent",
            "Gateways that do not tell their load; while there is one, no model is scaled down.",
            registry=self.registry,
        )
        self.usage_waiting = Gauge(
            "rerank_operator_usage_waiting",
            "APIKeys with usage that is not in their status yet.",
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "rerank_operator_loop_lag_seconds",
            "How much later than asked the event loop woke a timer.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(self.models)
        self.registry.register(self.watches)

    async def measure_loop_lag(self) -> None:
        """Run for ever beside everything else."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_INTERVAL_SECONDS
            await asyncio.sleep(_LAG_INTERVAL_SECONDS)
            self.loop_lag.observe(max(0.0, loop.time() - due))


@dataclass(slots=True)
class Health:
    """The answers of the port.

    Attributes:
        metrics: what is counted.
        unready: why the operator is not ready, "" when it is.
        fault: asked for what only another process can put right, "" while there is nothing.
    """

    metrics: Metrics
    unready: str = ""
    fault: Callable[[], str] = str

    async def start(self, port: int) -> web.AppRunner:
        """Serve on `port` of all addresses. The caller cleans the runner up."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_LAST_ANSWERS_SECONDS)
        await runner.setup()
        await web.SockSite(runner, _listen(port)).start()
        return runner

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(self.fault())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self.unready)

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _answer(why: str) -> web.Response:
    """To a probe: 503 with the reason, where there is one."""
    return web.Response(text=f"{why}\n", status=503) if why else web.Response(text="ok\n")


def _listen(port: int) -> socket.socket:
    """A socket on all addresses of both families, or of IPv4 where IPv6 is switched off."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port))  # noqa: S104  # the kubelet asks by the pod's address
