"""What a model pod says about itself on its status port.

Called by observe. The answer comes from a pod in a tenant's namespace: it is fetched under a short deadline
and a size limit, no redirect is followed, it is validated strictly, and it is only ever shown or compared,
never trusted.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rerank_api import names
from rerank_operator import bounded

DEADLINE_SECONDS: Final = 1.0
SIZE_LIMIT_BYTES: Final = 64 * 1024

Reason = Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9]{0,62})?$")]
# As long as the CRD's status takes them: a longer one would make the whole status unwritable.
Text = Annotated[str, Field(max_length=256)]
Word = Annotated[str, Field(max_length=64)]
Sentence = Annotated[str, Field(max_length=4096)]
Instruction = Annotated[str, Field(max_length=2000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PlanDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
# JSON has neither NaN nor infinity; Python's reader takes them all the same, and the API server does not.
Score = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Source(_Part):
    """The repository, the commit that its revision was resolved to, and the GGUF file that was taken."""

    repo: Text
    revision: Commit
    file: Text | None = None


class Download(_Part):
    """Progress in bytes and seconds."""

    bytes: Count
    total_bytes: Count
    eta_seconds: Count | None = None


class Scoring(_Part):
    """How the runtime scores. Digests in hex, `instruction` None where the model takes none."""

    method: Word
    range: Word
    pointwise: bool | None = None
    instruction: Instruction | None = None
    template_sha256: Digest | None = None
    plan_digest: PlanDigest | None = None


class Model(_Part):
    """The model as the runtime found it: weights and memory in bytes, context in tokens."""

    family: Word | None = None
    architecture: Text | None = None
    parameters: Count | None = None
    weights_bytes: Count | None = None
    context_length: Count | None = None
    dtype: Annotated[str, Field(max_length=32)] | None = None
    memory_bytes: Count | None = None
    prefix_caching: bool | None = None
    scoring: Scoring | None = None


class Case(_Part):
    """Known texts and the scores that the relevant and the irrelevant one got."""

    query: Sentence
    language: Word | None = None
    relevant: Score | None = None
    irrelevant: Score | None = None


class Verification(_Part):
    """Whether known texts were ranked in the right order, and whether that is required for serving."""

    verified: bool
    mode: Literal["Required", "Report", "Off"] = "Required"
    reason: Reason = ""
    message: Sentence = ""
    cases: Annotated[list[Case], Field(max_length=64)] = []

    @property
    def stands_in_the_way(self) -> bool:
        """It keeps the replica from serving."""
        return self.mode == "Required" and not self.verified and bool(self.reason)


class Report(_Part):
    """The answer of `GET /status`."""

    phase: Literal["Downloading", "Starting", "Verifying", "Ready", "Draining", "Failed"]
    reason: Reason = ""
    message: Sentence = ""
    source: Source | None = None
    download: Download | None = None
    model: Model | None = None
    verification: Verification | None = None


def parse(data: bytes) -> Report | None:
    """The report in an answer's body, or None when it is not one."""
    try:
        return Report.model_validate_json(data)
    except ValidationError:
        return None


class Poller:
    """Asks pods for their report. One for the process; at most `limit` questions at a time."""

    def __init__(self, *, limit: int = 64) -> None:
        self._client = bounded.session(deadline=DEADLINE_SECONDS, connections=limit)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, ip: str) -> Report | None:
        """The report of the pod at `ip`, or None when it gives no proper answer in time."""
        data = await bounded.get(self._client, ip, names.STATUS_PORT, "/status", limit=SIZE_LIMIT_BYTES)
        return None if data is None else parse(data)
