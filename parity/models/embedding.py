"""Embedding models ranked by cosine, where that is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, BertConfig, BertModel

from parity import tokenizer_types
from parity.models.base import HIDDEN, Family, Reference, randomised

_LENGTH = 256


class CosineReference(Reference):
    """Card of sentence-transformers/all-MiniLM-L6-v2: the mean of the token embeddings, normalised; texts are
    cut at 256 tokens (sentence_bert_config.json).
    """

    sigmoid = False

    def load(self, directory: Path) -> Any:
        return AutoModel.from_pretrained(directory, dtype=torch.float32)

    def prompts(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        return [
            list(self.tokenizer.encode(text, truncation=True, max_length=_LENGTH))
            for text in (query, *documents)
        ]

    def raw(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        prompts = (torch.tensor([ids]) for ids in self.prompts(query, documents))
        first, *rest = (self.model(ids).last_hidden_state.mean(dim=1) for ids in prompts)
        return torch.nn.functional.cosine_similarity(first, torch.cat(rest))

    def trained(self) -> Iterable[torch.nn.Parameter]:
        yield from self.model.encoder.layer[-1].parameters()


def _build(directory: Path, texts: Sequence[str]) -> None:
    tokenizer = tokenizer_types.wordpiece(texts)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=512,
        hidden_size=HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=2 * HIDDEN,
    )
    randomised(BertModel(config)).save_pretrained(directory)
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer_types.save(
        tokenizer, directory, "BertTokenizer", do_lower_case=True, model_max_length=512, **names
    )
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(zip(kinds, ("", "1_Pooling", "2_Normalize"), strict=True))
    ]
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (directory / "1_Pooling").mkdir()
    for name, content in (
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": _LENGTH, "do_lower_case": False}),
    ):
        (directory / name).write_text(json.dumps(content), encoding="utf-8")


FAMILIES = (
    Family(
        "embedding",
        "sentence-transformers/all-MiniLM-L6-v2",
        _LENGTH,
        _build,
        CosineReference,
        options=("--method=Cosine",),
        scale="[-1,1]",
    ),
)
