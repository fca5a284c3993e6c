"""What the language-model rerankers share: tiny decoders, and scores read from the last token."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from parity.models.base import HEAD, HIDDEN, Reference

LENGTH = 1024
DECODER: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": HEAD,
    "intermediate_size": 2 * HIDDEN,
    "max_position_embeddings": LENGTH,
}


class LastTokenReference(Reference):
    """A causal language model, asked for the logit of one token or the difference of two after the prompt."""

    @abstractmethod
    def ids(self, query: str, document: str) -> list[int]:
        """The prompt of one pair."""

    @abstractmethod
    def judged(self, logits: torch.Tensor) -> torch.Tensor:
        """The score, from the logits of the last position."""

    def load(self, directory: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)

    def prompts(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        return [self.ids(query, document) for document in documents]

    def raw(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        prompts = (torch.tensor([ids]) for ids in self.prompts(query, documents))
        return torch.stack([self.judged(self.model(ids).logits[0, -1]) for ids in prompts])

    def trained(self) -> Iterable[torch.nn.Parameter]:
        decoder = self.model.base_model
        yield from decoder.norm.parameters()
        yield from decoder.layers[-1].parameters()

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Ids of a text without the tokenizer's own special tokens, at most `limit` of them."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))[:limit]
