"""What the resource models share: camelCase in YAML, snake_case in Python, immutable."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class SpecModel(BaseModel):
    """Part of a spec: an unknown field is an error, as it is for the API server under strict validation."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", validate_default=True
    )


class StatusModel(BaseModel):
    """Part of a status: fields of a newer version are ignored, so that old readers keep reading."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Metadata(StatusModel):
    """The part of `metadata` that decisions depend on."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Resource(StatusModel):
    """A namespaced custom resource."""

    metadata: Metadata

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read an object as the API server returns it.

        Raises:
            pydantic.ValidationError: the object does not fit this version of the resource.
        """
        return cls.model_validate(body)
