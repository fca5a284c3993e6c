"""Qwen3-Reranker, from llama.cpp's layout `qwen3` (its converter: conversion/qwen.py, Qwen3Model).

The model card's score is the probability of "yes" against "no" as the next token: sigmoid(yes - no). The
converter keeps those two rows of the language model's head as `cls.output`, in this order; older conversions
keep the whole head, or none where it is the token embedding itself. Either way the difference of the two rows
is the weight of a classifier with one label, the form that converted repositories of Qwen3-Reranker have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_runtime.failure import Reason
from rerank_runtime.gguf import origin, weights
from rerank_runtime.gguf.layout import Inventory, Layout, Target, Values, refusal
from rerank_runtime.gguf.reader import GgufFile, Tensor

ARCHITECTURE = "qwen3"
_ANSWERS = ("yes", "no")
_LABELS = "qwen3.classifier.output_labels"
_NAME = "qwen3-reranker"


def layout(file: GgufFile) -> Layout:
    """The model's configuration and tensors.

    Raises:
        Failure: `NotAReranker` for a Qwen3 that was made for something else, `UnsupportedArchitecture` where
            anything differs from what the converter writes.
    """
    config = _config(file)
    width = config["hidden_size"]
    found = Inventory(file)
    score = _score(found, config)
    targets = [found.whole("model.embed_tokens.weight", "token_embd.weight", config["vocab_size"], width)]
    for index in range(config["num_hidden_layers"]):
        targets += _block(found, index, config)
    targets.append(found.whole("model.norm.weight", "output_norm.weight", width))
    targets.append(Target("score.weight", (1, width), "F32", (Values(score),)))
    found.finish()
    return Layout("Qwen3-Reranker", config, tuple(targets))


def _config(file: GgufFile) -> dict[str, Any]:
    metadata = file.metadata
    scaling = metadata.text("qwen3.rope.scaling.type", "none")
    if scaling != "none":
        raise refusal(file, f"scales its positions ({scaling[:40]!r})")
    blocks = metadata.integer("qwen3.block_count")
    if blocks > len(file.tensors):
        raise refusal(file, f"claims {blocks} blocks and has {len(file.tensors)} tensors")
    heads = metadata.integer("qwen3.attention.head_count")
    size = metadata.integer("qwen3.attention.key_length")
    if metadata.integer("qwen3.attention.value_length", size) != size:
        raise refusal(file, "has attention keys and values of different sizes")
    groups = metadata.integer("qwen3.attention.head_count_kv", heads)
    if not heads or not size or not groups or heads % groups:
        raise refusal(file, f"has {heads} attention heads of size {size} in {groups} groups")
    return {
        "architectures": ["Qwen3ForSequenceClassification"],
        "model_type": "qwen3",
        "vocab_size": len(metadata.texts("tokenizer.ggml.tokens")),
        "hidden_size": metadata.integer("qwen3.embedding_length"),
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": size,
        "intermediate_size": metadata.integer("qwen3.feed_forward_length"),
        "hidden_act": "silu",
        "rms_norm_eps": metadata.number("qwen3.attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.number("qwen3.rope.freq_base"),
        "max_position_embeddings": metadata.integer("qwen3.context_length"),
        "attention_bias": False,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "pad_token_id": metadata.integer("tokenizer.ggml.padding_token_id"),
        "eos_token_id": metadata.integer("tokenizer.ggml.eos_token_id"),
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }


def _block(found: Inventory, index: int, config: dict[str, Any]) -> list[Target]:
    source, target = f"blk.{index}", f"model.layers.{index}"
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    shapes = {
        "attn_norm": ("input_layernorm", (width,)),
        "attn_q": ("self_attn.q_proj", (queries, width)),
        "attn_k": ("self_attn.k_proj", (keys, width)),
        "attn_v": ("self_attn.v_proj", (keys, width)),
        "attn_q_norm": ("self_attn.q_norm", (size,)),
        "attn_k_norm": ("self_attn.k_norm", (size,)),
        "attn_output": ("self_attn.o_proj", (width, queries)),
        "ffn_norm": ("post_attention_layernorm", (width,)),
        "ffn_gate": ("mlp.gate_proj", (inner, width)),
        "ffn_up": ("mlp.up_proj", (inner, width)),
        "ffn_down": ("mlp.down_proj", (width, inner)),
    }
    return [
        found.whole(f"{target}.{name}.weight", f"{source}.{gguf_name}.weight", *shape)
        for gguf_name, (name, shape) in shapes.items()
    ]


def _score(found: Inventory, config: dict[str, Any]) -> NDArray[np.float32]:
    """The row whose product with the last token's state is the logit of yes against no."""
    file, width, vocabulary = found.file, config["hidden_size"], config["vocab_size"]
    named = origin.calls_itself(file.metadata, _NAME)
    if found.has("cls.output.weight") and (named or _LABELS in file.metadata):
        labels = tuple(file.metadata.texts(_LABELS)) if _LABELS in file.metadata else _ANSWERS
        if sorted(labels) != sorted(_ANSWERS):
            raise found.refusal(
                f"has a head for {len(labels)} labels, not for yes and no", Reason.NOT_A_RERANKER
            )
        head = found.take("cls.output.weight", 2, width)
        rows = {label: number for number, label in enumerate(labels)}
    elif named:
        tokens = file.metadata.texts("tokenizer.ggml.tokens")
        if not set(_ANSWERS) <= set(tokens):
            raise found.refusal("has no tokens yes and no", Reason.NOT_A_RERANKER)
        name = "output.weight" if found.has("output.weight") else "token_embd.weight"
        head = found.take(name, vocabulary, width)
        rows = {answer: tokens.index(answer) for answer in _ANSWERS}
    else:
        raise found.refusal(
            "has no head for yes and no (cls.output with these labels) and does not say that it is a "
            "Qwen3-Reranker: it is a language or embedding model",
            Reason.NOT_A_RERANKER,
        )
    return _difference(file, head, rows["yes"], rows["no"])


def _difference(file: GgufFile, head: Tensor, yes: int, no: int) -> NDArray[np.float32]:
    return weights.row(file.path, head, yes) - weights.row(file.path, head, no)
