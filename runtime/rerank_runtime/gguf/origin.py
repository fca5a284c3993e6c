"""Which repository a GGUF file was made from, for the message of a refusal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rerank_runtime.gguf.metadata import Metadata

_ADDRESS = re.compile(r"https?://[^/]+/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?:/|\.git)?$", re.ASCII)
# The file's own words, in the order in which they are to be trusted. A base model is often what the original
# was trained from (Qwen3-Reranker's card names Qwen3-Base), so it counts when it is a reranker itself.
_SOURCES = ("general.source.repo_url", "general.source.url", "general.source.huggingface.repository")
_BASE = "general.base_model.0.repo_url"
_NAME = re.compile(r"[\w .+-]{1,80}", re.ASCII)


def original(metadata: Metadata) -> str | None:
    """The repository (org/name) that the file names as its source, or None."""
    for key in _SOURCES:
        named = _repository(metadata, key)
        if named:
            return named
    base = _repository(metadata, _BASE)
    return base if base and "rerank" in base.lower() else None


def advice(metadata: Metadata) -> str:
    """One sentence for the end of a refusal: what to use instead."""
    repository = original(metadata)
    if repository:
        return f"Use the original repository {repository} instead."
    names = [str(metadata.values.get(key, "")) for key in ("general.name", "general.basename")]
    name = next((name for name in names if _NAME.fullmatch(name)), None)
    return f"Use the original repository{f' of {name}' if name else ''} in safetensors instead."


def calls_itself(metadata: Metadata, name: str) -> bool:
    """Whether the file's name or that of what it was made from contains a name, written with hyphens."""
    keys = ("general.name", "general.basename", "general.base_model.0.name", _BASE, *_SOURCES)
    words = (str(metadata.values.get(key, "")) for key in keys)
    return any(name in re.sub(r"[\s_]+", "-", word.lower()) for word in words)


def _repository(metadata: Metadata, key: str) -> str | None:
    value = str(metadata.values.get(key, ""))
    found = _ADDRESS.fullmatch(value if "://" in value else f"https://hub/{value}")
    return found[1] if found else None
