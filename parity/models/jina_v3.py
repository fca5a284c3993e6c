"""Jina reranker v3: Qwen3 that reads all documents in one prompt and compares embeddings at marked tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3Model

from parity import tokenizer_types
from parity.models.base import HIDDEN, Family, Reference, edit_config, randomised
from parity.models.causal import DECODER
from parity.models.qwen3 import save_qwen_tokenizer

_LENGTH = 4096
_SYSTEM = (
    "You are a search relevance expert who can determine a ranking of the passages based on how relevant "
    "they are to the query. If the query is a question, how relevant a passage is depends on how well it "
    "answers the question. If not, try to analyze the intent of the query and assess how well each passage "
    "satisfies the intent. If an instruction is provided, you should follow the instruction when determining "
    "the ranking."
)
_DOCUMENT, _QUERY = "<|embed_token|>", "<|rerank_token|>"
_FIRST_SPECIAL = 151_643
_EMBEDDING = 512


class _Ranker(torch.nn.Module):  # type: ignore[misc]  # as in nemotron
    """The definition: Qwen3 without a head, and a projection of two layers."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.model = Qwen3Model(config)
        self.projector = torch.nn.Sequential(
            torch.nn.Linear(HIDDEN, HIDDEN // 2, bias=False),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN // 2, _EMBEDDING, bias=False),
        )


class JinaReference(Reference):
    """Card of jinaai/jina-reranker-v3 (modeling.py): one prompt with every passage, an embedding where each
    passage's and the query's mark stands, and their cosines.
    """

    sigmoid = False

    def load(self, directory: Path) -> Any:
        ranker = _Ranker(Qwen3Config.from_pretrained(directory))
        ranker.load_state_dict(load_file(directory / "model.safetensors"))
        return ranker

    def prompts(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        passages = "\n".join(
            f'<passage id="{number}">\n{document}{_DOCUMENT}\n</passage>'
            for number, document in enumerate(documents)
        )
        text = (
            f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>user\n"
            f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
            f"Rank the passages based on their relevance to query: {query}\n{passages}\n"
            f"<query>\n{query}{_QUERY}\n</query>"
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
        return [list(self.tokenizer.encode(text, add_special_tokens=False))]

    def raw(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        ids = torch.tensor(self.prompts(query, documents))
        states = self.model.model(ids).last_hidden_state[0]
        marks = self.tokenizer.convert_tokens_to_ids([_DOCUMENT, _QUERY])
        embeddings = [self.model.projector(states[ids[0] == mark]) for mark in marks]
        return torch.nn.functional.cosine_similarity(embeddings[0], embeddings[1])

    def trained(self) -> Iterable[torch.nn.Parameter]:
        yield from self.model.projector.parameters()
        yield from self.model.model.norm.parameters()
        yield from self.model.model.layers[-1].parameters()

    def save(self) -> None:
        save_file(self.model.state_dict(), self.directory / "model.safetensors", {"format": "pt"})


def _build(directory: Path, texts: Sequence[str]) -> None:
    marks = ["<|score_token|>", _DOCUMENT, _QUERY]
    tokenizer = tokenizer_types.qwen(texts, more_special=marks, first_id=_FIRST_SPECIAL)
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        tie_word_embeddings=True,
        rope_theta=1_000_000,
        **DECODER | {"max_position_embeddings": _LENGTH},
    )
    ranker = randomised(_Ranker(config))
    save_file(ranker.state_dict(), directory / "model.safetensors", {"format": "pt"})
    config.save_pretrained(directory)
    # vLLM has the model; the repository's own code is named in its configuration all the same.
    edit_config(
        directory,
        architectures=["JinaForRanking"],
        auto_map={"AutoModel": "modeling.JinaForRanking"},
        dtype="float32",
    )
    save_qwen_tokenizer(tokenizer, directory)


FAMILIES = (
    Family(
        "jina-v3",
        "jinaai/jina-reranker-v3",
        _LENGTH,
        _build,
        JinaReference,
        _SYSTEM + " I will provide you with passages, each indicated by a numerical identifier.",
        scale="[-1,1]",
        overlong=False,
        note="all documents in one prompt",
    ),
)
