"""What a gateway answers on /usage: what it has counted of each key since it started.

Read by the collector. A gateway is ours, but reached by a name that others may point elsewhere: the answer is
validated strictly, and nothing of it is used but counts of APIKeys that exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rerank_api.api_key import LISTED_MODELS
from rerank_operator.usage import Counts

# A page of a gateway's answer holds 500 counts by model (its usage.py), each of less than 1 KB.
SIZE_LIMIT_BYTES: Final = 1024 * 1024
_LATEST: Final = 253402300799  # the last second of the year 9999: no later time can be written

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Process = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9.]{0,62}$")]
_Model = Annotated[
    str, Field(pattern=r"^(\(other\)|([a-z0-9][-a-z0-9]*/)?[a-z0-9][-a-z0-9.]*)$", max_length=128)
]


class KeyRef(NamedTuple):
    """One APIKey. One that was made anew under the name has another `uid`."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What one process has counted of one key. `last_used` in Unix seconds."""

    key: KeyRef
    last_used: float
    rows: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Report:
    """One answer.

    Attributes:
        process: random name of the process.
        phase: "draining" stops soon; "stopped" counts no more and waits to have its counts saved.
        version: grows with each change; the answer holds all that changed up to here.
        more: something changed after `version`.
        keys: those that changed after the version that was asked for.
    """

    process: str
    phase: str
    version: int
    more: bool
    keys: tuple[KeyReport, ...]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore", strict=True)


class _Row(_Part):
    name: _Model
    requests: _Count
    documents: _Count
    tokens: _Count
    rejected: _Count


class _Key(_Part):
    namespace: Name
    name: Name
    uid: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]
    last_used: Annotated[float, Field(ge=0, le=_LATEST)]
    models: Annotated[list[_Row], Field(max_length=LISTED_MODELS + 1)]


class _Answer(_Part):
    process: _Process
    phase: Literal["serving", "draining", "stopped"]
    version: _Count
    more: bool
    keys: Annotated[list[_Key], Field(max_length=1000)]


def parse(data: bytes) -> Report | None:
    """The report in an answer's body, or None when it is not one."""
    try:
        answer = _Answer.model_validate_json(data)
    except ValidationError:
        return None
    return Report(
        answer.process,
        answer.phase,
        answer.version,
        answer.more,
        tuple(
            KeyReport(
                KeyRef(key.namespace, key.name, key.uid),
                key.last_used,
                {
                    row.name: Counts(row.requests, row.documents, row.tokens, row.rejected)
                    for row in key.models
                },
            )
            for key in answer.keys
        ),
    )
