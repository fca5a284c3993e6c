"""APIKey: who may call which models. `crds/` is the source of truth; a test holds the two together."""

from typing import Annotated, ClassVar, Final

from pydantic import AwareDatetime, Field

from rerank_api.conditions import Condition
from rerank_api.resource import Resource, SpecModel, StatusModel

# Usage is told apart by this many models a key. What more of them use stands under one name, which no
# ModelDeployment can have.
LISTED_MODELS: Final = 32
OTHER_MODELS: Final = "(other)"
OVERLAP_SECONDS: Final = 86_400

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SecretTarget(SpecModel):
    """The Secret that the key is written to. `name` absent: the APIKey's own; no `ttl_seconds`: it stays."""

    name: str | None = None
    ttl_seconds: Annotated[int, Field(ge=10, le=31_536_000)] | None = None


class BroughtHash(SpecModel):
    """A key of the user's own: SHA-256 of the whole key in hex, from `notBefore` until `expiresAt`."""

    sha256: Digest
    not_before: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None


class KeyLimits(SpecModel):
    """How much may be asked for with the key, over all gateways together. Absent: as much as one likes."""

    requests_per_minute: Annotated[int | None, Field(ge=1)] = None
    documents_per_minute: Annotated[int | None, Field(ge=1)] = None
    tokens_per_minute: Annotated[int | None, Field(ge=1)] = None
    concurrent_requests: Annotated[int | None, Field(ge=1)] = None
    documents_per_request: Annotated[int | None, Field(ge=1)] = None


class APIKeySpec(SpecModel):
    """The wanted state.

    Attributes:
        description: what the key is for.
        models: absent, every model that the namespace may call; empty, none.
        expires_at: when all its keys stop.
        disabled: stops them until it is false again.
        secret: where a key that is made is written.
        version: raised for a new key; absent is 1.
        overlap_seconds: how long the former key works on; absent is a day.
        hashes: keys of the user's own; then none is made.
    """

    description: Annotated[str, Field(max_length=1000)] = ""
    models: list[str] | None = None
    expires_at: AwareDatetime | None = None
    disabled: bool = False
    limits: KeyLimits | None = None
    secret: SecretTarget | None = None
    version: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    overlap_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    hashes: Annotated[list[BroughtHash], Field(min_length=1, max_length=8)] | None = None


class KeyHash(StatusModel):
    """One key that is accepted: SHA-256 of the whole key in hex, from `notBefore` until `expiresAt`."""

    key_id: str
    sha256: Digest
    version: int | None = None
    not_before: AwareDatetime
    expires_at: AwareDatetime | None = None


class UsageCounts(StatusModel):
    """What was used: answered requests, their documents and tokens; requests refused for a limit (429)."""

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    rejected: int = 0


class ModelUsage(UsageCounts):
    """The part of one model: its name, as namespace/name where it is another namespace's."""

    name: str


class GatewayUsage(StatusModel):
    """What one gateway process had counted, since its start, when it was last added to the totals."""

    id: str
    models: list[ModelUsage] = []


class Usage(UsageCounts):
    """All that the key ever used. `gateways` makes each count enter the totals once."""

    models: list[ModelUsage] = []
    gateways: list[GatewayUsage] = []


class APIKeyStatus(StatusModel):
    """The state that the operator observed. `hint` is the start of the key: people tell keys apart by it.

    `version` is that of the newest key that was handed out, and the `secret…` fields tell of its Secret.
    """

    observed_generation: int = 0
    conditions: list[Condition] = []
    version: int | None = None
    key_id: str | None = None
    hint: str | None = None
    secret_name: str | None = None
    secret_uid: Annotated[str | None, Field(alias="secretUID")] = None
    secret_written_at: AwareDatetime | None = None
    secret_expires_at: AwareDatetime | None = None
    hashes: list[KeyHash] = []
    last_used_time: AwareDatetime | None = None
    usage: Usage | None = None


class APIKey(Resource):
    """A key for the gateway: kind APIKey."""

    kind: ClassVar[str] = "APIKey"
    plural: ClassVar[str] = "apikeys"

    spec: APIKeySpec = APIKeySpec()
    status: APIKeyStatus = APIKeyStatus()

    @property
    def secret_name(self) -> str:
        """The Secret that is to hold the key."""
        return (self.spec.secret.name if self.spec.secret else None) or self.metadata.name
