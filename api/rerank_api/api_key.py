"""APIKey: who may call which models. `crds/` is the source of truth; a test holds the two together."""

from typing import Annotated, ClassVar, Final

from pydantic import AwareDatetime, Field

from rerank_api.conditions import Condition
from rerank_api.resource import Resource, SpecModel, StatusModel

# Usage is told apart by this many models a key. What more of them use stands under one name, which no
# ModelDeployment can have.
LISTED_MODELS: Final = 32
OTHER_MODELS: Final = "(other)"


class SecretTarget(SpecModel):
    """The Secret that the key is written to; the APIKey's own name when absent."""

    name: str


class APIKeySpec(SpecModel):
    """The wanted state. `models` absent: every model that the namespace may call; empty: none."""

    description: Annotated[str, Field(max_length=1000)] = ""
    models: list[str] | None = None
    expires_at: AwareDatetime | None = None
    disabled: bool = False
    secret: SecretTarget | None = None


class KeyHash(StatusModel):
    """One key that is accepted: SHA-256 of the whole key in hex, from `notBefore` until `expiresAt`."""

    key_id: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
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
    """The state that the operator observed. `hint` is the start of the key: people tell keys apart by it."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    key_id: str | None = None
    hint: str | None = None
    secret_name: str | None = None
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
        """The Secret that holds the key."""
        return self.spec.secret.name if self.spec.secret else self.metadata.name
