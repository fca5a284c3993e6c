"""Families of models: which architectures are known, and which module decides about each."""

from __future__ import annotations

import re
from collections.abc import Callable

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families import (
    embedding,
    encoder,
    gemma,
    gte_new,
    jina_v3,
    llama,
    modernbert,
    qwen2,
    qwen3,
    unserved,
)
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

_Decide = Callable[[ModelFiles, Options, str], Profile]

_FAMILIES: dict[str, _Decide] = {
    architecture: family.profile
    for family in (encoder, modernbert, gte_new, qwen3, qwen2, gemma, llama, jina_v3, embedding)
    for architecture in family.ARCHITECTURES
}
SUPPORTED = tuple(_FAMILIES)

# Has a head for scores, or gives embeddings: another architecture of the right kind.
_SCORES = re.compile(r"ForSequenceClassification|ForRanking|Rerank|(?<!LMHead)Model$")
_LONGEST_NAME = 100


def profile(files: ModelFiles, options: Options) -> tuple[str, Profile]:
    """The architecture and how a model of it is served.

    Raises:
        Failure: it cannot be, or not as asked.
    """
    architectures = files.config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"config.json names no architecture. Supported are {', '.join(SUPPORTED)}.",
        )
    architecture = architectures[0]
    if architecture in _FAMILIES:
        return architecture, _FAMILIES[architecture](files, options, architecture)
    name = architecture[:_LONGEST_NAME]
    if _SCORES.search(architecture) or "LogitScore" in files.module_kinds or _named_reranker(files):
        why = unserved.WHY.get(architecture, f"Supported are {', '.join(SUPPORTED)}.")
        raise Failure(Reason.UNSUPPORTED_ARCHITECTURE, f"{name} is not served. {why}")
    raise Failure(
        Reason.NOT_A_RERANKER,
        f"{name} gives no relevance score for a pair of texts. Supported are {', '.join(SUPPORTED)}.",
    )


def _named_reranker(files: ModelFiles) -> bool:
    return any("rerank" in name.lower() for name in files.names)
