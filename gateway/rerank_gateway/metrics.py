"""What the gateway counts, for Prometheus. Labels are bounded: models, status codes, the first APIKeys."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rerank_gateway.model_load import ModelLoad
from rerank_gateway.records import ObjectId
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

        self._of_models: dict[ObjectId, ModelMetrics] = {}
        self._scheduling = _Scheduling(self.registry)
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

    def of_model(self, model: ObjectId) -> "ModelMetrics":
        """The metrics of one model's scheduling."""
        found = self._of_models.get(model)
        if found is None:
            found = self._of_models[model] = self._scheduling.of(model)
        return found

    def watch_loads(self, loads: Callable[[], list[ModelLoad]]) -> None:
        """Export what waits for each model, read when scraped."""
        self.registry.register(_Loads(loads))

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


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """Of one model's scheduling: `wait` in seconds."""

    wait: Histogram
    refused: Counter
    split: Counter
    retries: Counter
    ejections: Counter
    cached: Counter
    not_cached: Counter


class _Scheduling:
    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"rerank_gateway_{name}", text, ["namespace", "model", *labels], registry=registry)

        self._wait = Histogram(
            "rerank_gateway_queue_wait_seconds",
            "How long requests of one part waited for a replica, where they had to, by model.",
            ["namespace", "model"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._refused = counter(
            "queue_refusals", "Requests refused because they would have waited too long, by model."
        )
        self._split = counter("split_parts", "Parts that requests were split into, by model.")
        self._retries = counter("backend_retries", "Second attempts, by model.")
        self._ejections = counter(
            "ejections", "How often a replica was left alone after several failures, by model."
        )
        self._cache = counter(
            "score_cache_documents",
            "Documents looked up in the score cache, by model and outcome.",
            "outcome",
        )

    def of(self, model: ObjectId) -> ModelMetrics:
        return ModelMetrics(
            wait=self._wait.labels(*model),
            refused=self._refused.labels(*model),
            split=self._split.labels(*model),
            retries=self._retries.labels(*model),
            ejections=self._ejections.labels(*model),
            cached=self._cache.labels(*model, "hit"),
            not_cached=self._cache.labels(*model, "miss"),
        )


class _Loads(Collector):
    def __init__(self, loads: Callable[[], list[ModelLoad]]) -> None:
        self._loads = loads

    def collect(self) -> list[Metric]:
        families = {
            name: GaugeMetricFamily(f"rerank_gateway_{name}", text, labels=["namespace", "model"])
            for name, text in _LOADS.items()
        }
        for load in self._loads():
            for name, family in families.items():
                family.add_metric(list(load.model), getattr(load, name))
        return list(families.values())


_LOADS: Final = {
    "queued_requests": "Requests that wait for a replica, by model.",
    "queued_documents": "Documents of these requests that were not sent yet, by model.",
    "queued_tokens": "The same in estimated tokens, by model.",
    "running_tokens": "Estimated tokens that replicas were sent and have not answered, by model.",
    "held_requests": "Requests that wait for the first replica of a model.",
}


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
