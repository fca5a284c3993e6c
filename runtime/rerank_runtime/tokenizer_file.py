"""What tokenizer.json says of a few words: their ids. Reads it as JSON, without the tokenizers library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Words that prompts are marked with and that scores are read from, of all families.
WORDS = (
    "yes",
    "no",
    "1",
    "0",
    "Yes",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<|embed_token|>",
    "<|rerank_token|>",
)


class TokenizerFile:
    """The parsed content of tokenizer.json, of any shape."""

    def __init__(self, content: dict[str, Any] | None) -> None:
        self._ids: dict[str, int] = {}
        model = (content or {}).get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(vocabulary, dict):
            self._add(vocabulary.items())
        elif isinstance(vocabulary, list):  # Unigram: pairs of piece and score, the place is the id
            pieces = (entry[0] for entry in vocabulary if isinstance(entry, list) and entry)
            self._add((piece, number) for number, piece in enumerate(pieces))
        added = (content or {}).get("added_tokens")
        if isinstance(added, list):
            entries = (entry for entry in added if isinstance(entry, dict))
            self._add((entry.get("content"), entry.get("id")) for entry in entries)

    def _add(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self._ids.update(
            (word, number) for word, number in pairs if isinstance(word, str) and isinstance(number, int)
        )

    def ids(self, words: Iterable[str]) -> dict[str, int]:
        """The ids of those words that it has."""
        return {word: self._ids[word] for word in words if word in self._ids}

    def word(self, number: Any) -> str | None:
        """The word with an id, or None."""
        return next((word for word, known in self._ids.items() if known == number), None)
