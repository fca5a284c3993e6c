"""How many prompt tokens a request must have, computed with the model's own tokenizer and not by the
engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from rerank_runtime.families import jina_v3
from rerank_runtime.options import Method
from rerank_runtime.serve_plan import ServePlan


class Case(Protocol):
    """A query with two documents."""

    @property
    def query(self) -> str: ...
    @property
    def relevant(self) -> str: ...
    @property
    def irrelevant(self) -> str: ...


def expected(directory: Path, plan: ServePlan, cases: Sequence[Case]) -> tuple[int, ...]:
    """Prompt tokens of each case's request with its two documents, as vLLM's `usage` counts them."""
    count = _counter(directory)
    return tuple(_of_request(count, plan, case.query, [case.irrelevant, case.relevant]) for case in cases)


def _of_request(count: Callable[..., int], plan: ServePlan, query: str, documents: list[str]) -> int:
    if not plan.pointwise:
        return count(jina_v3.prompt(query, documents))
    if plan.template is not None:
        return sum(count(plan.render(query, document)) for document in documents)
    if plan.method is Method.COSINE:
        # An embedding model reads the query once and each document.
        return count(query) + sum(count(document) for document in documents)
    # A cross-encoder reads the query with each document.
    return sum(count(query, document) for document in documents)


def _counter(directory: Path) -> Callable[..., int]:
    from tokenizers import Tokenizer  # noqa: PLC0415 - not needed by the other commands, which must start fast

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    # What training saved (MiniLM's file cuts at 128 tokens and pads to them) is not what serving does.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(text: str, pair: str | None = None) -> int:
        return len(tokenizer.encode(text, pair).ids)

    return count
