"""ModelDeployment: a reranker to run. `crds/` is the source of truth; a test holds the two together."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from rerank_api.conditions import Condition
from rerank_api.effective import Effective
from rerank_api.model_source import ModelSource
from rerank_api.recipe import Quantity, Recipe
from rerank_api.resource import Resource, SpecModel, StatusModel

Phase = Literal["Pending", "Downloading", "Starting", "Verifying", "Ready", "Degraded", "Idle", "Failed"]
RolloutStrategy = Literal["Auto", "Surge", "Recreate"]

_IDLE_SECONDS: Final = 900


class Scheduling(SpecModel):
    """Where replicas may run: Kubernetes' own fields, as in a pod.

    Attributes:
        node_selector: labels that a node must have.
        tolerations: taints that are put up with.
        affinity: for nodes, and for pods of the same namespace.
        priority_class_name: of a PriorityClass; None for the cluster's default.
        runtime_class_name: of a RuntimeClass; None for the node's default.
        topology_spread_constraints: None spreads replicas over nodes, as far as there is room.
    """

    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    affinity: dict[str, Any] = {}
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    topology_spread_constraints: list[dict[str, Any]] | None = None


class Autoscaling(SpecModel):
    """How many replicas there may be, and when their number changes.

    Attributes:
        min_replicas: the fewest; with 0 the model is stopped while nobody asks for it.
        max_replicas: the most.
        target_queue_seconds: replicas are added when what waits would take them longer.
        scale_down_delay_seconds: replicas are removed when fewer would have been enough for so long.
        idle_seconds_to_zero: without a request for so long the last one is removed; None is the default.
    """

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    target_queue_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 1
    scale_down_delay_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    idle_seconds_to_zero: Annotated[int | None, Field(ge=1, le=604_800)] = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("spec.autoscaling: minReplicas must not be more than maxReplicas")
        if self.idle_seconds_to_zero is not None and self.min_replicas > 0:
            raise ValueError("spec.autoscaling: idleSecondsToZero is for minReplicas 0")
        return self

    @property
    def idle_seconds(self) -> int:
        """`idle_seconds_to_zero`, or its default."""
        return _IDLE_SECONDS if self.idle_seconds_to_zero is None else self.idle_seconds_to_zero

    def within(self, replicas: int) -> int:
        """The number nearest to `replicas` that is allowed."""
        return max(self.min_replicas, min(replicas, self.max_replicas))


class Rollout(SpecModel):
    """How a change reaches replicas that run.

    Attributes:
        strategy: Auto starts new beside old where there is room, else replaces one by one; Surge waits for
            room; Recreate ends all old ones first.
        progress_deadline_seconds: without a new replica that becomes ready, after which it is told.
    """

    strategy: RolloutStrategy = "Auto"
    progress_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 1800


class StorageClaim(SpecModel):
    """A claim in the ModelDeployment's own namespace. Downloads are kept on it and shared by the replicas."""

    claim_name: str


class EphemeralStorage(SpecModel):
    """A part of the node's disk that goes with the pod."""

    size_limit: Quantity


class Storage(SpecModel):
    """Where downloaded weights are kept: exactly one of the two."""

    persistent_volume_claim: StorageClaim | None = None
    ephemeral: EphemeralStorage | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.persistent_volume_claim is None) == (self.ephemeral is None):
            raise ValueError("spec.storage: set exactly one of persistentVolumeClaim and ephemeral")
        return self


class Access(SpecModel):
    """Namespaces whose keys may call the model, besides those of its own."""

    namespaces: list[str] = []


class ModelDeploymentSpec(Recipe):
    """The wanted state."""

    model: ModelSource
    aliases: list[str] = []
    access: Access | None = None
    replicas: Annotated[int, Field(ge=0)] = 1
    autoscaling: Autoscaling | None = None
    scheduling: Scheduling = Scheduling()
    rollout: Rollout = Rollout()
    storage: Storage | None = None


class CaseStatus(StatusModel):
    """A verification case and what its two texts scored, rounded to four decimals."""

    query: str
    language: str | None = None
    relevant: float | None = None
    irrelevant: float | None = None


class ScoringStatus(StatusModel):
    """How the running model scores.

    Attributes:
        method: CrossEncoder or Cosine.
        range: such as "[0,1]" or "logits".
        pointwise: each document is scored by itself; False for listwise models.
        template_sha256: of the chat template that queries and documents are put into, in hex.
        instruction: the instruction in effect, for models that take one.
        plan_digest: of everything that scores depend on, in hex: replicas with the same one score alike.
        verified: whether known pairs were ranked right; None where nothing was asked.
        cases: what the replica was verified with.
    """

    method: str
    range: str
    pointwise: bool | None = None
    template_sha256: Annotated[str | None, Field(alias="templateSHA256")] = None
    instruction: str | None = None
    plan_digest: str | None = None
    verified: bool | None = None
    cases: list[CaseStatus] | None = None


class ModelStatus(StatusModel):
    """What runs. `revision` is a commit of 40 hex digits; lengths are in tokens, sizes in bytes."""

    catalog: str | None = None
    repo: str | None = None
    revision: str | None = None
    source_digest: str | None = None
    file: str | None = None
    family: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    weights_bytes: int | None = None
    context_length: int | None = None
    dtype: str | None = None
    memory_bytes: int | None = None
    prefix_caching: bool | None = None
    scoring: ScoringStatus | None = None


class DownloadStatus(StatusModel):
    """Progress of the slowest download, in bytes and seconds."""

    bytes: int
    total_bytes: int
    eta_seconds: int | None = None


class AutoscalingStatus(StatusModel):
    """How many replicas spec.autoscaling wants, why, and since when."""

    replicas: int
    reason: str = ""
    message: str = ""
    last_scale_time: datetime | None = None


class ThroughputStatus(StatusModel):
    """What one replica does while it has all that it can take, and when that was last seen."""

    tokens_per_second: int
    measured_at: AwareDatetime


class LatencyStatus(StatusModel):
    """What clients wait for rankings, of how many requests, and when the newest was answered."""

    median_seconds: float
    p95_seconds: float
    requests: int
    measured_at: AwareDatetime


class MeasuredStatus(StatusModel):
    """How fast the model was when it was last asked; None where that was never seen."""

    throughput: ThroughputStatus | None = None
    latency: LatencyStatus | None = None


class ModelDeploymentStatus(StatusModel):
    """The state that the operator observed. `ready` is "1/2": ready of wanted replicas, for a column."""

    observed_generation: int = 0
    phase: Phase | None = None
    conditions: list[Condition] = []
    replicas: int = 0
    ready_replicas: int = 0
    ready: str = ""
    selector: str = ""
    model: ModelStatus | None = None
    effective: Effective | None = None
    autoscaling: AutoscalingStatus | None = None
    measured: MeasuredStatus | None = None
    download: DownloadStatus | None = None
    endpoint: str | None = None
    message: str = ""


class ModelDeployment(Resource):
    """A reranker to run: kind ModelDeployment, short name `md`."""

    kind: ClassVar[str] = "ModelDeployment"
    plural: ClassVar[str] = "modeldeployments"

    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = ModelDeploymentStatus()

    @property
    def wanted_replicas(self) -> int:
        """How many replicas there should be: spec.replicas, or what autoscaling has made of it."""
        autoscaling, decided = self.spec.autoscaling, self.status.autoscaling
        if autoscaling is None:
            return self.spec.replicas
        return autoscaling.within(self.spec.replicas if decided is None else decided.replicas)
