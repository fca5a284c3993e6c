"""What is in effect for a ModelDeployment: its own fields, else its catalog entry's, else the defaults.

Pure. The operator builds pods from it and shows it in `status.effective`.
"""

from collections.abc import Mapping
from typing import Any, Final

from rerank_api.recipe import Dtype, OnOverflow, Recipe, ScoringMethod, VerificationMode
from rerank_api.resource import StatusModel

_BY_CLAIM: Final = ("resource_claim_template_name",)
_BY_RESOURCE: Final = ("resource_name", "products", "min_memory")


class EffectiveGpu(StatusModel):
    """GPUs of one replica: `count` 0 means the CPU, more than 1 that a model is split over so many.

    Any product and memory will do where none is named. A ResourceClaimTemplate decides alone: nothing is
    asked for by `resource_name` then.
    """

    count: int = 1
    resource_name: str = "nvidia.com/gpu"
    products: list[str] = []
    min_memory: str | None = None
    resource_claim_template_name: str | None = None

    @property
    def claim_template(self) -> str | None:
        """The ResourceClaimTemplate that a replica's GPU is claimed by, if it is and there is one."""
        return self.resource_claim_template_name if self.count else None


class EffectiveResources(StatusModel):
    """What one replica gets, as Kubernetes quantities."""

    gpu: EffectiveGpu = EffectiveGpu()
    cpu: str = "1"
    memory: str = "8Gi"


class EffectiveEngine(StatusModel):
    """How vLLM runs the model. Absent: the serving profile decides."""

    max_model_len: int | None = None
    dtype: Dtype = "auto"
    gpu_memory_utilization: float | None = None
    trust_remote_code: bool = False
    image: str | None = None
    extra_args: list[str] = []


class EffectiveTruncation(StatusModel):
    """What happens to texts that are too long. Limits in tokens; absent: the model's own length."""

    max_tokens_per_document: int | None = None
    max_tokens_per_query: int | None = None
    on_overflow: OnOverflow = "Truncate"


class EffectiveCase(StatusModel):
    """A query with a text that must score higher than the other."""

    query: str
    relevant: str
    irrelevant: str


class EffectiveVerification(StatusModel):
    """Whether ranking known texts right is required; `cases` come besides the built-in ones."""

    mode: VerificationMode = "Required"
    cases: list[EffectiveCase] = []


class EffectiveScoring(StatusModel):
    """How pairs are scored. `instruction` absent: the one of the model's card, where it has one."""

    method: ScoringMethod = "Auto"
    instruction: str | None = None
    truncation: EffectiveTruncation = EffectiveTruncation()
    cache_scores: bool = False
    verification: EffectiveVerification = EffectiveVerification()


class Effective(StatusModel):
    """How the replicas are to run."""

    resources: EffectiveResources = EffectiveResources()
    engine: EffectiveEngine = EffectiveEngine()
    scoring: EffectiveScoring = EffectiveScoring()


def effective(own: Recipe, entry: Recipe | None = None) -> Effective:
    """What is in effect. Field by field `own` wins over `entry`, and `entry` over the defaults.

    A list counts as one field: cases of one's own replace those of the entry. A claim and an extended
    resource are two ways to a GPU: whoever asks in one way sets aside what the entry asks in the other,
    and that it is served on the CPU.
    """
    fields = set(Recipe.model_fields)
    layers = [recipe.model_dump(include=fields, exclude_none=True) for recipe in (entry, own) if recipe]
    merged: dict[str, Any] = {}
    for layer in layers:
        _set_aside(merged, layer)
        merged = _over(merged, layer)
    return Effective.model_validate(merged)


def _set_aside(below: Mapping[str, Any], above: Mapping[str, Any]) -> None:
    """Take out of `below` what is against the GPU that `above` asks for: another way, or none at all."""
    asked, gpu = (layer.get("resources", {}).get("gpu", {}) for layer in (above, below))
    for way, other in ((_BY_CLAIM, _BY_RESOURCE), (_BY_RESOURCE, _BY_CLAIM)):
        if any(asked.get(name) for name in way):
            for name in other:
                gpu.pop(name, None)
            if gpu.get("count") == 0:
                del gpu["count"]


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _over(below[name], value)
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping)
        else value
        for name, value in above.items()
    }
    return {**below, **both}
