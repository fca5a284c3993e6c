"""What the gateway counts, for Prometheus. Labels are bounded: models, status codes, the first APIKeys."""

import asyncio
from collections.abc import Callable
from typing import ClassVar, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rerank_gateway.usage import Counts, Usage

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_LAG_INTERVAL_SECONDS: Final = 0.25


class Metrics:
    """The gateway's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rerank_gateway_requests",
            "Answered requests by model (empty where none was resolved) and status code; "
            "499: the client left first.",
            ["namespace", "model", "code"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "rerank_gateway_request_seconds",
            "From the head of a request to the end of its answer, by model.",
            ["namespace", "model"],
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.documents = Counter(
            "rerank_gateway_documents",
            "Documents of the requests that were answered with a ranking, by model.",
            ["namespace", "model"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "rerank_gateway_tokens",
            "Tokens that the model read for those requests, by model.",
            ["namespace", "model"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "rerank_gateway_requests_in_flight", "Requests that are being served.", registry=self.registry
        )
        self.in_flight_bytes = Gauge(
            "rerank_gateway_in_flight_bytes",
            "Bytes of requests and answers that are held; at RERANK_MAX_IN_FLIGHT_BYTES bodies are refused.",
            registry=self.registry,
        )
        self.retries = Counter(
            "rerank_gateway_backend_retries",
            "Second attempts, by model.",
            ["namespace", "model"],
            registry=self.registry,
        )
        self.peer_answers = Counter(
            "rerank_gateway_peer_answers",
            "How often another gateway was asked for its consumption: heard, silent or malformed.",
            ["outcome"],
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "rerank_gateway_event_loop_lag_seconds",
            "How much later than asked the event loop woke a timer.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )

        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._used: dict[tuple[str, str], tuple[Counter, Counter]] = {}

    def answered(self, namespace: str, model: str, code: int, seconds: float) -> None:
        """Count one request. The children are kept: looking them up costs more than counting."""
        children = self._children.get((namespace, model, code))
        if children is None:
            children = (
                self.requests.labels(namespace, model, str(code)),
                self.latency.labels(namespace, model),
            )
            self._children[namespace, model, code] = children
        children[0].inc()
        children[1].observe(seconds)

    def used(self, namespace: str, model: str, documents: int, tokens: int) -> None:
        """Count what one answered request took of a model."""
        children = self._used.get((namespace, model))
        if children is None:
            children = (self.documents.labels(namespace, model), self.tokens.labels(namespace, model))
            self._used[namespace, model] = children
        children[0].inc(documents)
        children[1].inc(tokens)

    def of_keys(self, usage: Usage) -> None:
        """Export what each key used, read when scraped."""
        self.registry.register(_KeyUsages(usage))

    def watch(self, ages: Callable[[], dict[str, float]]) -> None:
        """Export the age of each watch, read when scraped."""
        self.registry.register(_WatchAges(ages))

    async def measure_loop_lag(self) -> None:
        """Run for ever beside the servers."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_INTERVAL_SECONDS
            await asyncio.sleep(_LAG_INTERVAL_SECONDS)
            self.loop_lag.observe(max(0.0, loop.time() - due))

    async def text(self) -> bytes:
        """The exposition format. Written down in a thread: for a thousand keys that takes 50 ms."""
        collected = _Collected(list(self.registry.collect()))
        return await asyncio.to_thread(generate_latest, collected)


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


class _WatchAges(Collector):
    def __init__(self, ages: Callable[[], dict[str, float]]) -> None:
        self._ages = ages

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily(
            "rerank_gateway_watch_age_seconds",
            "Seconds since the source of objects last said that it is up to date.",
            labels=["watch"],
        )
        for name, age in self._ages().items():
            family.add_metric([name], age)
        return [family]


class _KeyUsages(Collector):
    """By APIKey, not by the ids of its keys: a new key goes on with the series of the old one."""

    _LABELS: ClassVar = ("namespace", "api_key", "model")

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def collect(self) -> list[Metric]:
        families = [
            CounterMetricFamily(f"rerank_gateway_key_{name}", text, labels=self._LABELS)
            for name, text in (
                (
                    "requests",
                    "Answered requests by APIKey and model; (other): APIKeys not told apart.",
                ),
                ("documents", "Documents of those requests."),
                ("tokens", "Tokens that models read for those requests."),
                ("rejected", "Requests that were refused for a limit of the key."),
            )
        ]

        def add(labels: tuple[str, str, str], counts: Counts) -> None:
            values = (counts.requests, counts.documents, counts.tokens, counts.rejected)
            for family, value in zip(families, values, strict=True):
                family.add_metric(labels, value)

        for used in self._usage.told_apart():
            for model, counts in used.models.items():
                add((*used.key.id, model), counts)
        add(("", "(other)", ""), self._usage.others)
        return list(families)
