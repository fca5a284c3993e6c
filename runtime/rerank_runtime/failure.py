"""Why a model cannot be served, in the words that reach the ModelDeployment's condition."""

from __future__ import annotations

from enum import StrEnum
from typing import TypedDict

# Where a person puts the hub's token.
TOKEN_FIELD = "spec.model.huggingFace.tokenSecretRef"  # noqa: S105 - a field's name


class Reason(StrEnum):
    """Machine-readable causes. The operator copies them into conditions, so they are part of the contract."""

    # fetch
    REPOSITORY_NOT_FOUND = "RepositoryNotFound"
    REVISION_NOT_FOUND = "RevisionNotFound"
    REPOSITORY_GATED = "RepositoryGated"
    TOKEN_REJECTED = "TokenRejected"  # noqa: S105 - a cause, not a token
    DISK_FULL = "DiskFull"
    HUB_UNREACHABLE = "HubUnreachable"
    HUB_RATE_LIMITED = "HubRateLimited"
    VOLUME_UNUSABLE = "VolumeUnusable"
    INVALID_SOURCE = "InvalidSource"
    # fetch and serve
    WEIGHTS_TRUNCATED = "WeightsTruncated"
    WEIGHTS_CORRUPT = "WeightsCorrupt"
    # the plan
    NOT_A_RERANKER = "NotAReranker"
    UNSUPPORTED_ARCHITECTURE = "UnsupportedArchitecture"
    FILE_MISSING = "FileMissing"
    INVALID_OPTIONS = "InvalidOptions"
    # the plan and the engine
    REMOTE_CODE_REQUIRED = "RemoteCodeRequired"
    TOKENIZER_INVALID = "TokenizerInvalid"
    # the engine
    ENGINE_OUT_OF_MEMORY = "EngineOutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    GPU_FAULT = "GpuFault"
    GPU_UNUSABLE = "GpuUnusable"
    KV_CACHE_TOO_SMALL = "KvCacheTooSmall"
    ENGINE_HUNG = "EngineHung"
    ENGINE_FAILED = "EngineFailed"
    # verification
    SCORES_CONSTANT = "ScoresConstant"
    SCORES_SATURATED = "ScoresSaturated"
    SCORES_TOO_CLOSE = "ScoresTooClose"
    SCORES_NOT_FINITE = "ScoresNotFinite"
    SCORES_INVERTED = "ScoresInverted"
    WRONG_ROUTES = "WrongRoutes"
    TEMPLATE_DIFFERS = "TemplateDiffers"
    INSTRUCTION_IGNORED = "InstructionIgnored"
    PROMPT_TOKENS_DIFFER = "PromptTokensDiffer"
    ENGINE_ERROR = "EngineError"
    # the runtime itself
    INTERNAL_ERROR = "InternalError"


class FailureJson(TypedDict):
    """A failure as the termination message carries it."""

    reason: str
    message: str
    retriable: bool


class Failure(Exception):  # noqa: N818 - it names what happened; most are facts about a model, not errors of ours
    """A model cannot be served.

    Args:
        reason: The cause.
        message: One or two sentences for a person, with the way out where there is one. Never a secret.
        retriable: Whether the same spec may succeed later without anybody's doing.
    """

    def __init__(self, reason: Reason, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retriable = retriable

    def as_json(self) -> FailureJson:
        return {"reason": str(self.reason), "message": self.message, "retriable": self.retriable}
