"""How many prompt tokens a request must have, computed with the model's own tokenizer and not by the
engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rerank_runtime.plan import Method
from rerank_runtime.verification import Case


def expected(directory: Path, method: Method, cases: Sequence[Case]) -> tuple[int, ...]:
    """Prompt tokens of each case's request with its two documents.

    A cross-encoder reads the query with each document; an embedding model reads the query once and each
    document.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - not needed by the other commands, which must start fast

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    # What training saved (MiniLM's file cuts at 128 tokens and pads to them) is not what serving does.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(text: str, pair: str | None = None) -> int:
        return len(tokenizer.encode(text, pair).ids)

    if method is Method.CROSS_ENCODER:
        return tuple(count(c.query, c.relevant) + count(c.query, c.irrelevant) for c in cases)
    return tuple(count(c.query) + count(c.relevant) + count(c.irrelevant) for c in cases)
