"""What a gateway answers on /load: how much each model has to do, for `autoscaling`, and how fast it was, for
`measuring`.

As with usage, the answer is validated strictly, and nothing of it is used but the loads of models that
autoscale, and figures of models that exist.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rerank_operator.autoscaler import Load
from rerank_operator.measurement import Figures, Latency
from rerank_operator.usage_report import Name

# Two thousand models with eight replicas each.
SIZE_LIMIT_BYTES: Final = 4 * 1024 * 1024

ModelId = tuple[str, str]
"""Namespace and name of a ModelDeployment."""

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Positive = Annotated[float, Field(ge=0, le=2**53, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore", strict=True)


class _Model(_Part):
    """One that was asked for."""

    queued_tokens: _Count
    running_tokens: _Count
    held_requests: _Count
    read_tokens: _Count
    tokens_per_second: _Positive | None
    measured_seconds_ago: _Positive | None
    idle_seconds: _Positive


class _Latency(_Part):
    median_seconds: _Positive
    p95_seconds: _Positive
    requests: Annotated[int, Field(ge=1, le=2**53)]
    seconds_ago: _Positive


class _Measured(_Part):
    """The same, of which a gateway of an earlier version does not tell the latency."""

    namespace: Name
    name: Name
    tokens_per_second: _Positive | None
    measured_seconds_ago: _Positive | None
    latency: _Latency | None = None


class _Answer(_Part):
    process: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    models: list[dict[str, Any]]


def loads(data: bytes, wanted: Container[ModelId]) -> Mapping[ModelId, Load] | None:
    """The loads of those of the `wanted` models that were asked for, or None when the answer is not one."""
    try:
        answer = _Answer.model_validate_json(data)
        return {
            (model["namespace"], model["name"]): Load(
                process=answer.process, **_Model.model_validate(model).model_dump()
            )
            for model in _asked_for(answer)
            if (model.get("namespace"), model.get("name")) in wanted
        }
    except (ValidationError, TypeError):  # a name may be anything: also what cannot be looked up
        return None


def figures(data: bytes) -> Mapping[ModelId, Figures] | None:
    """What was measured of the models that were asked for, or None when the answer is not one."""
    try:
        found = [_Measured.model_validate(model) for model in _asked_for(_Answer.model_validate_json(data))]
    except ValidationError:
        return None
    return {
        (model.namespace, model.name): Figures(
            model.tokens_per_second,
            model.measured_seconds_ago,
            None if model.latency is None else Latency(**model.latency.model_dump()),
        )
        for model in found
    }


def _asked_for(answer: _Answer) -> Iterable[dict[str, Any]]:
    return (model for model in answer.models if "idleSeconds" in model)
