"""How a model should run: what a ModelDeployment asks for and what a CatalogModel suggests.

Everything may be absent: `effective` puts the two together with the defaults.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rerank_api.resource import SpecModel

ScoringMethod = Literal["Auto", "CrossEncoder", "Cosine"]
Dtype = Literal["auto", "float16", "bfloat16", "float32"]
OnOverflow = Literal["Truncate", "Reject"]
VerificationMode = Literal["Required", "Report", "Off"]

# A Kubernetes quantity: the API server keeps `cpu: 2` a number and `cpu: 500m` a string.
Quantity = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]
ExtraArgument = Annotated[str, Field(pattern=r"^--[a-z0-9][a-z0-9-]*(=.*)?$", max_length=512)]
GpuCount = Literal[0, 1, 2, 4, 8]
Tokens = Annotated[int, Field(ge=1, le=1_048_576)]


class GpuResources(SpecModel):
    """GPUs of one replica.

    Attributes:
        count: 0 runs the model on the CPU; more than 1 splits it over so many GPUs of one node.
        resource_name: of the extended resource that nodes offer.
        products: which GPUs will do, as GPU feature discovery names them; any, where there is none.
        min_memory: that the GPU must have.
        resource_claim_template_name: of a ResourceClaimTemplate that every replica claims its GPU by, instead
            of the three before.
    """

    count: GpuCount | None = None
    resource_name: str | None = None
    products: list[str] | None = None
    min_memory: Quantity | None = None
    resource_claim_template_name: str | None = None


class Resources(SpecModel):
    """What one replica asks the scheduler for: Kubernetes quantities."""

    gpu: GpuResources | None = None
    cpu: Quantity | None = None
    memory: Quantity | None = None


class Engine(SpecModel):
    """How vLLM runs the model.

    Attributes:
        max_model_len: most tokens of query and document together; absent, what the model takes.
        dtype: type of the numbers that it calculates with.
        gpu_memory_utilization: part of the GPU's memory that vLLM takes, above 0 and at most 1.
        trust_remote_code: run Python code of the repository, where an administrator allows it.
        image: image of the pods, where an administrator allows it; absent, the installation's.
        extra_args: further flags for vLLM, each as "--name=value", where an administrator allows them.
    """

    max_model_len: Tokens | None = None
    dtype: Dtype | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    trust_remote_code: bool | None = None
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    extra_args: Annotated[list[ExtraArgument], Field(max_length=32)] | None = None


class Truncation(SpecModel):
    """What happens to texts that are too long. Limits in tokens."""

    max_tokens_per_document: Tokens | None = None
    max_tokens_per_query: Tokens | None = None
    on_overflow: OnOverflow | None = None


class VerificationCase(SpecModel):
    """A query with a text that must score higher than the other."""

    query: Annotated[str, Field(min_length=1, max_length=400)]
    relevant: Annotated[str, Field(min_length=1, max_length=800)]
    irrelevant: Annotated[str, Field(min_length=1, max_length=800)]


class Verification(SpecModel):
    """Whether a replica has to rank known texts right before it gets requests, and texts of one's own."""

    mode: VerificationMode | None = None
    cases: Annotated[list[VerificationCase], Field(max_length=10)] | None = None


class Scoring(SpecModel):
    """How a pair of query and document becomes a score."""

    method: ScoringMethod | None = None
    instruction: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    truncation: Truncation | None = None
    cache_scores: bool | None = None
    verification: Verification | None = None


class Recipe(SpecModel):
    """How a model should run."""

    resources: Resources | None = None
    engine: Engine | None = None
    scoring: Scoring | None = None
