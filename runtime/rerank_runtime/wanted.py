"""Which files of a repository are fetched, and what is made of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rerank_runtime import gguf, selection

_WEIGHTS = ".safetensors"
# Files beside a GGUF file that its conversion may use.
_BASE_FILES = ("config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Wanted:
    """The files of a repository that are needed."""

    names: tuple[str, ...]
    gguf: gguf.Choice | None = None
    """The one among them that has to be converted, if the weights are in GGUF."""


def choose(names: Iterable[str], pattern: str | None, *, python: bool = False) -> Wanted:
    """Choose among a repository's files: safetensors where there are any, unless a GGUF file is asked for.

    Args:
        names: All of them, as paths.
        pattern: A glob over the GGUF files.
        python: Whether the repository's Python files may be run.

    Raises:
        Failure: `InvalidSource` where there is nothing that could be served.
    """
    present = list(names)
    has_gguf = any(name.lower().endswith(".gguf") for name in present)
    # At the top: elsewhere they are something else, such as an exported copy.
    has_weights = any(name.endswith(_WEIGHTS) and "/" not in name for name in present)
    if pattern is None and (has_weights or not has_gguf):
        return Wanted(tuple(selection.select(present, python=python)))
    choice = gguf.choose(present, pattern)
    return Wanted((choice.name, *(name for name in _BASE_FILES if name in present)), choice)
