"""What a gateway answers on /load: how much each model has to do. Read by `autoscaling`.

As with usage, the answer is validated strictly, and nothing of it is used but the loads of models that
autoscale.
"""

from collections.abc import Container, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rerank_operator.autoscaler import Load

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


class _Answer(_Part):
    process: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    models: list[dict[str, Any]]


def parse(data: bytes, wanted: Container[ModelId]) -> Mapping[ModelId, Load] | None:
    """The loads of those of the `wanted` models that were asked for, or None when the answer is not one."""
    try:
        answer = _Answer.model_validate_json(data)
        return {
            (model["namespace"], model["name"]): Load(
                process=answer.process, **_Model.model_validate(model).model_dump()
            )
            for model in answer.models
            if "idleSeconds" in model and (model.get("namespace"), model.get("name")) in wanted
        }
    except (ValidationError, TypeError):  # a name may be anything: also what cannot be looked up
        return None
