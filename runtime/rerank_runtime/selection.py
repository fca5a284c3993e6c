"""Which files of a repository are fetched: configuration, tokenizer, model card and safetensors. Pure.

No pickles (loading one runs its code), no copies for other frameworks, no pictures; Python files only where
an administrator allows the repository's code. The model card is read by the plan: some models say nowhere
else that they are rerankers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rerank_runtime import scoring_head
from rerank_runtime.failure import Failure, Reason

_ROOT_FILES = frozenset(
    {
        "config.json",
        "README.md",
        "chat_template.jinja",
        "config_sentence_transformers.json",
        "modules.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
        "sentencepiece.bpe.model",
        "spiece.model",
        "tokenizer.model",
    }
)
_SENTENCE_CONFIG = re.compile(r"sentence_[a-z-]+_config\.json")
# Folders of sentence-transformers' modules, such as 1_Pooling.
_MODULE_CONFIG = re.compile(r"\d+_[A-Za-z]+/config\.json")
_PYTHON = re.compile(r"\w+\.py")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def select(names: Iterable[str], *, python: bool = False) -> list[str]:
    """The files to fetch, sorted.

    Args:
        names: The repository's files.
        python: Whether its Python files may be run, and so are fetched.

    Raises:
        Failure: `InvalidSource` where there is no configuration or are no safetensors weights.
    """
    present = set(names)
    if "config.json" not in present:
        raise Failure(Reason.INVALID_SOURCE, _without_config(present))
    patterns = (_SENTENCE_CONFIG, _MODULE_CONFIG, *((_PYTHON,) if python else ()))
    wanted = {n for n in present if n in _ROOT_FILES or any(pattern.fullmatch(n) for pattern in patterns)}
    shards = {name for name in present if _SHARD.fullmatch(name)}
    if _WHOLE in present:
        weights = {_WHOLE}
    elif shards and _INDEX in present:
        weights = shards | {_INDEX}
    else:
        raise Failure(
            Reason.INVALID_SOURCE,
            "The repository has no safetensors weights (model.safetensors). Pickled weights run code when "
            "they are loaded and are not fetched: choose a revision or a repository with safetensors.",
        )
    return sorted(wanted | weights | scoring_head.parts(present))


def _without_config(present: set[str]) -> str:
    if "adapter_config.json" in present:
        return (
            "The repository holds an adapter and no whole model: merge it into its base model, and serve the "
            "result."
        )
    if any(name.endswith(".gguf") for name in present):
        return (
            "The repository has no config.json, only GGUF: choose one of its files with "
            "spec.model.huggingFace.file."
        )
    return "The repository has no config.json: it holds no model in this layout."
