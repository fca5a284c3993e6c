"""ModelDeployment: a reranker to run. `crds/` is the source of truth; a test holds the two together."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rerank_api.conditions import Condition
from rerank_api.resource import Resource, SpecModel, StatusModel

Phase = Literal["Pending", "Downloading", "Starting", "Verifying", "Ready", "Degraded", "Idle", "Failed"]
ScoringMethod = Literal["Auto", "CrossEncoder", "Cosine"]


# A Kubernetes quantity: the API server keeps `cpu: 2` a number and `cpu: 500m` a string.
Quantity = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]


class SecretKeyReference(SpecModel):
    """A key of a Secret in the ModelDeployment's own namespace."""

    name: str
    key: str = "token"


class HuggingFaceSource(SpecModel):
    """A repository of a hub that speaks the Hugging Face protocol."""

    repo: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    ]
    revision: Annotated[str, Field(min_length=1, max_length=200)] = "main"
    token_secret_ref: SecretKeyReference | None = None
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$", max_length=500)] | None = (
        None
    )


class PersistentVolumeClaimSource(SpecModel):
    """A folder with the model's files on a claim in the ModelDeployment's own namespace."""

    claim_name: str
    path: Annotated[str, Field(max_length=1000)] = ""


class ModelSource(SpecModel):
    """Where the model's files come from: exactly one source."""

    hugging_face: HuggingFaceSource | None = None
    persistent_volume_claim: PersistentVolumeClaimSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.hugging_face is None) == (self.persistent_volume_claim is None):
            raise ValueError("spec.model: set exactly one of huggingFace and persistentVolumeClaim")
        return self


class GpuResources(SpecModel):
    """GPUs of one replica. `count` 0 runs the model on the CPU."""

    count: Annotated[int, Field(ge=0, le=1)] = 1
    resource_name: str = "nvidia.com/gpu"


class Resources(SpecModel):
    """What one replica asks the scheduler for: Kubernetes quantities."""

    gpu: GpuResources = GpuResources()
    cpu: Quantity = "1"
    memory: Quantity = "8Gi"


class Scheduling(SpecModel):
    """Where replicas may run. Tolerations are Kubernetes' own, as in a pod."""

    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []


class Scoring(SpecModel):
    """How a pair of query and document becomes a score."""

    method: ScoringMethod = "Auto"


class ModelDeploymentSpec(SpecModel):
    """The wanted state."""

    model: ModelSource
    aliases: list[str] = []
    replicas: Annotated[int, Field(ge=0)] = 1
    resources: Resources = Resources()
    scheduling: Scheduling = Scheduling()
    scoring: Scoring = Scoring()


class ScoringStatus(StatusModel):
    """How the running model scores: `method` CrossEncoder or Cosine; `range` such as "[0,1]" or "logits"."""

    method: str
    range: str


class ModelStatus(StatusModel):
    """What runs. `revision` is a commit of 40 hex digits; lengths are in tokens, weights in bytes."""

    repo: str | None = None
    revision: str | None = None
    family: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    weights_bytes: int | None = None
    context_length: int | None = None
    scoring: ScoringStatus | None = None


class DownloadStatus(StatusModel):
    """Progress of the slowest download, in bytes and seconds."""

    bytes: int
    total_bytes: int
    eta_seconds: int | None = None


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
    download: DownloadStatus | None = None
    endpoint: str | None = None
    message: str = ""


class ModelDeployment(Resource):
    """A reranker to run: kind ModelDeployment, short name `md`."""

    kind: ClassVar[str] = "ModelDeployment"
    plural: ClassVar[str] = "modeldeployments"

    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = ModelDeploymentStatus()
