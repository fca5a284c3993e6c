"""BERT, RoBERTa and XLM-RoBERTa cross-encoders: MS MARCO, BGE v2-m3, base and large, Jina v2."""

from __future__ import annotations

from typing import Any

from rerank_runtime import activation
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families import checks
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

_FAMILIES = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "xlm-roberta",
}
ARCHITECTURES = tuple(_FAMILIES)
_HEADS = {"bert": "classifier.weight"}
_ROBERTA_HEAD = "classifier.out_proj.weight"
# Jina v2 is an XLM-RoBERTa whose weights have other names, which vLLM maps; its config.json has no model_type
# and is read by a configuration class of its own.
_JINA_CONFIGURATION = "XLMRobertaFlashConfig"


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How a cross-encoder of these architectures is served.

    Raises:
        Failure: it cannot be, or not as asked.
    """
    config, family = files.config, _FAMILIES[architecture]
    jina = _is_jina(config)
    checks.cross_encoder(architecture, options.method)
    if jina:
        checks.allowed_code(files, options, architecture)
    else:
        checks.no_code(config, architecture)
    absolute_positions(config, architecture)
    checks.modules(files, architecture)
    checks.no_prompt(files, architecture)
    checks.one_label(config)
    checks.head(files, _HEADS.get(family, _ROBERTA_HEAD))
    return Profile(
        family="jina-v2" if jina else family,
        score_range=activation.score_range(files),
        longest=checks.longest(files, positions(config, family)),
        hf_overrides=overrides(config, family) | activation.overrides(files),
        remote_code=jina,
    )


def absolute_positions(config: dict[str, Any], architecture: str) -> None:
    """The positions are learnt ones, the only kind that vLLM's classes of this family have."""
    position = config.get("position_embedding_type", "absolute")
    if position not in (None, "absolute"):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"{architecture} with {position} position embeddings is not served; absolute ones are.",
        )


def positions(config: dict[str, Any], family: str) -> int:
    """How many tokens have a position.

    RoBERTa counts positions from the padding token's id + 1, so two of them are never used; vLLM does not
    know it for models that transformers 5 saved, and scores pairs from positions that do not exist.
    """
    count = checks.integer(config, "max_position_embeddings")
    if family == "bert":
        return count
    padding = config.get("pad_token_id", 1)
    unused = (padding if isinstance(padding, int) and padding >= 0 else 1) + 1
    if count <= unused:
        raise Failure(Reason.FILE_MISSING, "config.json has no usable max_position_embeddings.")
    return count - unused


def overrides(config: dict[str, Any], family: str) -> dict[str, Any]:
    """What vLLM's RoBERTa asks for and transformers 5 no longer saves."""
    if family == "bert" or "position_embedding_type" in config:
        return {}
    return {"position_embedding_type": "absolute"}


def _is_jina(config: dict[str, Any]) -> bool:
    auto_map = config.get("auto_map")
    reference = auto_map.get("AutoConfig") if isinstance(auto_map, dict) else None
    return isinstance(reference, str) and reference.endswith(f".{_JINA_CONFIGURATION}")
