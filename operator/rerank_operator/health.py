"""The operator's own port: /livez, /readyz, /metrics. Started by `main`."""

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from rerank_operator.model_metrics import ModelMetrics


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
    models: ModelMetrics = field(default_factory=ModelMetrics)

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
        self.registry.register(self.models)


@dataclass(frozen=True, slots=True)
class Health:
    """The answers of the port. `unready` returns why the operator is not ready, "" when it is."""

    metrics: Metrics
    unready: Callable[[], str]

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
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, _listen(port)).start()
        return runner

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        why = self.unready()
        return web.Response(text=f"{why}\n", status=503) if why else web.Response(text="ok\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _listen(port: int) -> socket.socket:
    """A socket on all addresses of both families, or of IPv4 where IPv6 is switched off."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port))  # noqa: S104  # the kubelet asks by the pod's address
