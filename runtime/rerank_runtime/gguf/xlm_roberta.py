"""XLM-RoBERTa cross-encoders, from llama.cpp's layout `bert` (its converter: conversion/bert.py,
XLMRobertaModel).

What the converter changes, and what is undone here: the position embeddings lose their first rows, up to and
with that of the padding token, since positions count on from there and no text reaches them (they are zeros
here); the classification head's two layers are called `cls` and `cls.output`.
"""

from __future__ import annotations

from typing import Any

from rerank_runtime.failure import Reason
from rerank_runtime.gguf.layout import Inventory, Layout, Rows, Target, Zeros, refusal, stored
from rerank_runtime.gguf.reader import GgufFile

ARCHITECTURE = "bert"
_BLOCK_NORMS = (("attn_output_norm", "attention.output.LayerNorm"), ("layer_output_norm", "output.LayerNorm"))


def layout(file: GgufFile) -> Layout:
    """The model's configuration and tensors.

    Raises:
        Failure: `NotAReranker` where there is no head with one label, `UnsupportedArchitecture` where
            anything differs from what the converter writes.
    """
    _check(file)
    metadata = file.metadata
    config = _config(file)
    width, inner = config["hidden_size"], config["intermediate_size"]
    found = Inventory(file)
    targets = [
        found.whole(
            "roberta.embeddings.word_embeddings.weight", "token_embd.weight", config["vocab_size"], width
        ),
        _positions(found, config),
        found.whole(
            "roberta.embeddings.token_type_embeddings.weight",
            "token_types.weight",
            config["type_vocab_size"],
            width,
        ),
        *found.norm("roberta.embeddings.LayerNorm", "token_embd_norm", width),
    ]
    for index in range(config["num_hidden_layers"]):
        targets += _block(found, index, width, inner)
    targets += found.linear("classifier.dense", "cls", width, width)
    targets += _last(found, width)
    found.finish()
    if (
        metadata.integer("bert.context_length") + config["pad_token_id"] + 1
        != config["max_position_embeddings"]
    ):
        raise refusal(file, "names a context length that its position embeddings do not have")
    return Layout("XLM-RoBERTa cross-encoder", config, tuple(targets))


def _check(file: GgufFile) -> None:
    tokenizer = file.metadata.text("tokenizer.ggml.model", "none")
    if tokenizer == "bert":
        # conversion/bert.py leaves pooler.dense out, without which BertForSequenceClassification computes
        # something else.
        raise refusal(file, "is of a BERT whose pooling layer llama.cpp's converter leaves out")
    if tokenizer != "t5":
        raise refusal(file, f"has a tokenizer of kind {tokenizer[:40]!r}, which is not that of XLM-RoBERTa")
    if "cls.weight" not in file.tensors or "cls.output.weight" not in file.tensors:
        raise refusal(
            file,
            "has no classification head (cls, cls.output): it is an embedding model, or a conversion "
            "that lost it",
            Reason.NOT_A_RERANKER,
        )


def _config(file: GgufFile) -> dict[str, Any]:
    metadata = file.metadata
    padding = metadata.integer("tokenizer.ggml.padding_token_id")
    width, heads = metadata.integer("bert.embedding_length"), metadata.integer("bert.attention.head_count")
    if not width or not heads or width % heads:
        raise refusal(file, f"has {heads} attention heads over a width of {width}")
    blocks = metadata.integer("bert.block_count")
    if blocks > len(file.tensors):
        raise refusal(file, f"claims {blocks} blocks and has {len(file.tensors)} tensors")
    positions = file.tensors.get("position_embd.weight")
    return {
        "architectures": ["XLMRobertaForSequenceClassification"],
        "model_type": "xlm-roberta",
        "vocab_size": len(metadata.texts("tokenizer.ggml.tokens")),
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "intermediate_size": metadata.integer("bert.feed_forward_length"),
        "hidden_act": "gelu",
        "layer_norm_eps": metadata.number("bert.attention.layer_norm_epsilon"),
        "position_embedding_type": "absolute",
        "max_position_embeddings": (positions.shape[0] if positions else 0) + padding + 1,
        "type_vocab_size": metadata.integer("tokenizer.ggml.token_type_count"),
        "pad_token_id": padding,
        "bos_token_id": metadata.integer("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.integer("tokenizer.ggml.eos_token_id"),
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }


def _positions(found: Inventory, config: dict[str, Any]) -> Target:
    padding = config["pad_token_id"] + 1
    total, width = config["max_position_embeddings"], config["hidden_size"]
    tensor = found.take("position_embd.weight", total - padding, width)
    return Target(
        "roberta.embeddings.position_embeddings.weight",
        (total, width),
        stored(tensor),
        (Zeros(padding), Rows(tensor, 0, total - padding)),
    )


def _block(found: Inventory, index: int, width: int, inner: int) -> list[Target]:
    source, target = f"blk.{index}", f"roberta.encoder.layer.{index}"
    targets = _attention(found, source, f"{target}.attention.self", width)
    targets += found.linear(f"{target}.attention.output.dense", f"{source}.attn_output", width, width)
    targets += found.linear(f"{target}.intermediate.dense", f"{source}.ffn_up", inner, width)
    targets += found.linear(f"{target}.output.dense", f"{source}.ffn_down", width, inner)
    for gguf_name, name in _BLOCK_NORMS:
        targets += found.norm(f"{target}.{name}", f"{source}.{gguf_name}", width)
    return targets


def _attention(found: Inventory, source: str, target: str, width: int) -> list[Target]:
    names = ("query", "key", "value")
    if not found.has(f"{source}.attn_qkv.weight"):
        pairs = zip(names, ("attn_q", "attn_k", "attn_v"), strict=True)
        return [
            t
            for name, part in pairs
            for t in found.linear(f"{target}.{name}", f"{source}.{part}", width, width)
        ]
    # Fused: the three one below the other.
    weight = found.take(f"{source}.attn_qkv.weight", 3 * width, width)
    bias = found.take(f"{source}.attn_qkv.bias", 3 * width)
    targets = []
    for number, name in enumerate(names):
        rows = (number * width, (number + 1) * width)
        targets += [
            Target(f"{target}.{name}.weight", (width, width), stored(weight), (Rows(weight, *rows),)),
            Target(f"{target}.{name}.bias", (width,), stored(bias), (Rows(bias, *rows),)),
        ]
    return targets


def _last(found: Inventory, width: int) -> list[Target]:
    head = found.file.tensors["cls.output.weight"]
    # A single row may have lost its dimension.
    labels = 1 if len(head.shape) == 1 else head.shape[0]
    if labels != 1:
        raise found.refusal(
            f"is a classifier with {labels} labels; a reranker has one, the relevance", Reason.NOT_A_RERANKER
        )
    tensor = found.take("cls.output.weight", *((width,) if len(head.shape) == 1 else (1, width)))
    rows = Rows(tensor, 0, tensor.shape[0])
    return [
        Target("classifier.out_proj.weight", (1, width), stored(tensor), (rows,)),
        found.whole("classifier.out_proj.bias", "cls.output.bias", 1),
    ]
