"""What Prometheus may know of each model: its phase and its replicas. Written by the model reconciler."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(slots=True, eq=False)  # a registry keeps collectors by identity
class ModelMetrics(Collector):
    """The models as they were last looked at, read when scraped. Those that are gone leave no series."""

    _models: dict[tuple[str, str], tuple[str, int, int]] = field(default_factory=dict)

    def note(self, namespace: str, name: str, *, phase: str, wanted: int, ready: int) -> None:
        """The model is in this phase and has so many replicas, wanted and serving."""
        self._models[namespace, name] = (phase, wanted, ready)

    def forget(self, namespace: str, name: str) -> None:
        """The model is gone."""
        self._models.pop((namespace, name), None)

    def collect(self) -> Iterator[Metric]:
        labels = ("namespace", "model")
        phase = GaugeMetricFamily(
            "rerank_operator_model_phase", "1 for the phase that a model is in.", labels=(*labels, "phase")
        )
        wanted = GaugeMetricFamily(
            "rerank_operator_model_replicas_wanted", "Replicas that a model should have.", labels=labels
        )
        ready = GaugeMetricFamily(
            "rerank_operator_model_replicas_ready", "Replicas of a model that serve.", labels=labels
        )
        for model, (its_phase, its_wanted, its_ready) in self._models.items():
            phase.add_metric((*model, its_phase), 1)
            wanted.add_metric(model, its_wanted)
            ready.add_metric(model, its_ready)
        yield from (phase, wanted, ready)
