"""APIKey: who may call which models. `crds/` is the source of truth; a test holds the two together."""

from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from rerank_api.conditions import Condition
from rerank_api.resource import Resource, SpecModel, StatusModel


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


class APIKeyStatus(StatusModel):
    """The state that the operator observed. `hint` is the start of the key: people tell keys apart by it."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    key_id: str | None = None
    hint: str | None = None
    secret_name: str | None = None
    hashes: list[KeyHash] = []


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
