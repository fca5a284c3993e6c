"""Cross-encoders that transformers has as `…ForSequenceClassification`: a pair goes in, a logit comes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from parity import tokenizer_types
from parity.models.base import HIDDEN, Family, Reference, edit_config, randomised

SMALL: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 2 * HIDDEN,
    "num_labels": 1,
}


class PairReference(Reference):
    """The tokenizer's own pair, cut longest first to the model's length (`truncation=True`), and the one
    logit. Cards: BAAI/bge-reranker-v2-m3 ("Using Huggingface transformers", `normalize=True` is the sigmoid),
    Alibaba-NLP/gte-reranker-modernbert-base, cross-encoder/ms-marco-MiniLM-L6-v2 (sentence-transformers:
    identity).
    """

    length = 512

    def load(self, directory: Path) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)

    def prompts(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        return [self._encoded(query, document)["input_ids"][0].tolist() for document in documents]

    def raw(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        return torch.cat([self.model(**self._encoded(query, d)).logits.view(-1) for d in documents])

    def trained(self) -> Iterable[torch.nn.Parameter]:
        head = self.model.classifier
        yield from head.parameters()
        for name in ("pooler", "head"):
            for module in (getattr(self.model, name, None), getattr(self.model.base_model, name, None)):
                if module is not None:
                    yield from module.parameters()

    def _encoded(self, query: str, document: str) -> Any:
        return self.tokenizer(query, document, truncation=True, max_length=self.length, return_tensors="pt")


class IdentityReference(PairReference):
    """As above, the logit itself."""

    sigmoid = False


class LongReference(PairReference):
    """As above, for the models of 8,192 positions: the tiny ones have 1,024."""

    length = 1024


def _bert(directory: Path, texts: Sequence[str]) -> None:
    tokenizer = tokenizer_types.wordpiece(texts)
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=512, **SMALL)
    randomised(BertForSequenceClassification(config)).save_pretrained(directory)
    identity = "torch.nn.modules.linear.Identity"
    edit_config(
        directory, sentence_transformers={"activation_fn": identity, "version": "5.2.0"}, dtype="float32"
    )
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer_types.save(
        tokenizer, directory, "BertTokenizer", do_lower_case=True, model_max_length=512, **names
    )


def marks(**more: Any) -> dict[str, Any]:
    return {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    } | more


def _roberta_like(
    directory: Path, texts: Sequence[str], *, multilingual: bool, length: int, said: bool
) -> None:
    tokenizer = tokenizer_types.unigram(texts) if multilingual else tokenizer_types.roberta(texts)
    config_class, model_class, name = (
        (XLMRobertaConfig, XLMRobertaForSequenceClassification, "XLMRobertaTokenizer")
        if multilingual
        else (RobertaConfig, RobertaForSequenceClassification, "RobertaTokenizer")
    )
    config = config_class(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=length + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **SMALL,
    )
    randomised(model_class(config)).save_pretrained(directory)
    # What older transformers saved and newer ones leave out: the family occurs both ways.
    edit_config(directory, position_embedding_type="absolute" if said else None)
    tokenizer_types.save(tokenizer, directory, name, model_max_length=length, **marks())


def _bge_m3(directory: Path, texts: Sequence[str]) -> None:
    _roberta_like(directory, texts, multilingual=True, length=1024, said=False)


def _bge_base(directory: Path, texts: Sequence[str]) -> None:
    _roberta_like(directory, texts, multilingual=True, length=512, said=False)


def _roberta(directory: Path, texts: Sequence[str]) -> None:
    _roberta_like(directory, texts, multilingual=False, length=512, said=True)


def _modernbert(directory: Path, texts: Sequence[str], pooling: str) -> None:
    tokenizer = tokenizer_types.modernbert(texts)
    ids = {name: tokenizer.token_to_id(f"[{name.upper()}]") for name in ("pad", "cls", "sep")}
    config = ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=1024,
        global_attn_every_n_layers=3,
        local_attention=128,
        classifier_pooling=pooling,
        pad_token_id=ids["pad"],
        bos_token_id=ids["cls"],
        cls_token_id=ids["cls"],
        eos_token_id=ids["sep"],
        sep_token_id=ids["sep"],
        **SMALL | {"num_hidden_layers": 4},
    )
    randomised(ModernBertForSequenceClassification(config)).save_pretrained(directory)
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer_types.save(tokenizer, directory, "PreTrainedTokenizerFast", model_max_length=1024, **names)


def _modernbert_mean(directory: Path, texts: Sequence[str]) -> None:
    _modernbert(directory, texts, "mean")


def _modernbert_cls(directory: Path, texts: Sequence[str]) -> None:
    _modernbert(directory, texts, "cls")


FAMILIES = (
    Family("bert", "cross-encoder/ms-marco-MiniLM-L6-v2", 512, _bert, IdentityReference, scale="logits"),
    Family("xlm-roberta", "BAAI/bge-reranker-v2-m3", 1024, _bge_m3, LongReference),
    Family("xlm-roberta-514", "BAAI/bge-reranker-base", 512, _bge_base, PairReference),
    Family("roberta", "cross-encoder/stsb-roberta-base", 512, _roberta, PairReference),
    Family("modernbert", "Alibaba-NLP/gte-reranker-modernbert-base", 1024, _modernbert_mean, LongReference),
    Family("modernbert-cls", "ModernBERT with CLS pooling", 1024, _modernbert_cls, LongReference),
)
