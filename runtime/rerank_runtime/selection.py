"""Which files of a repository are fetched: configuration, tokenizer and safetensors. Pure.

No pickles (loading one runs its code), no copies for other frameworks, no pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rerank_runtime.failure import Failure, Reason

_ROOT_FILES = frozenset(
    {
        "config.json",
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
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def select(names: Iterable[str]) -> list[str]:
    """The files to fetch, sorted.

    Raises:
        Failure: `InvalidSource` where there is no configuration or are no safetensors weights.
    """
    present = set(names)
    if "config.json" not in present:
        raise Failure(
            Reason.INVALID_SOURCE, "The repository has no config.json: it holds no model in this layout."
        )
    wanted = {
        n for n in present if n in _ROOT_FILES or _SENTENCE_CONFIG.fullmatch(n) or _MODULE_CONFIG.fullmatch(n)
    }
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
    return sorted(wanted | weights)
