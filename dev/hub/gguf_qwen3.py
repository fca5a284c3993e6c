"""Qwen3-Reranker in small, as a GGUF file by the layout of llama.cpp's converter (conversion/qwen.py).

Its weights are random: it scores by its prompt to the last token, and ranks nothing. Its tokenizer is made by
hand: a token for each byte, the answers yes and no, and the marks that the prompt of Qwen3-Reranker is made
of. Deterministic, as word_overlap.
"""

from __future__ import annotations

from collections.abc import Iterator

import gguf
from gguf import GGMLQuantizationType as Kind

from dev.hub.gguf_file import TokenType, Weights, written
from dev.hub.word_overlap import Array

WIDTH, BLOCKS, HEADS, GROUPS, HEAD, INTERMEDIATE = 128, 2, 2, 1, 64, 256
POSITIONS = 2048

# How byte-level BPE writes bytes as text, and what yes and no are merged from.
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = [chr(point) for point in (*_PRINTED, *range(0x100, 0x200 - len(_PRINTED)))]
_MERGED = {"ye": "y e", "yes": "ye s", "no": "n o"}
_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_THOUGHTS = ("<think>", "</think>")
_TOKENS = [*_BYTES, *_MERGED, *_CONTROLS, *_THOUGHTS]


def file(quantisation: Kind) -> bytes:
    """The whole file, with its matrices in that type."""
    return written("qwen3", _describe, _tensors(), quantisation)


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("Qwen3 Reranker Tiny")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(["yes", "no"])
    _add_tokenizer(writer)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    kinds = dict.fromkeys(_CONTROLS, TokenType.CONTROL) | dict.fromkeys(_THOUGHTS, TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(_TOKENS)
    writer.add_token_types([kinds.get(token, TokenType.NORMAL) for token in _TOKENS])
    writer.add_token_merges(list(_MERGED.values()))
    writer.add_bos_token_id(_TOKENS.index("<|endoftext|>"))
    writer.add_eos_token_id(_TOKENS.index("<|im_end|>"))
    writer.add_pad_token_id(_TOKENS.index("<|endoftext|>"))
    writer.add_add_bos_token(False)


def _tensors() -> Iterator[tuple[str, Array]]:
    weights = Weights()
    yield "token_embd.weight", weights.matrix(len(_TOKENS), WIDTH)
    for index in range(BLOCKS):
        block = f"blk.{index}"
        yield f"{block}.attn_norm.weight", weights.norm(WIDTH)
        yield f"{block}.attn_q.weight", weights.matrix(HEADS * HEAD, WIDTH)
        yield f"{block}.attn_k.weight", weights.matrix(GROUPS * HEAD, WIDTH)
        yield f"{block}.attn_v.weight", weights.matrix(GROUPS * HEAD, WIDTH)
        yield f"{block}.attn_q_norm.weight", weights.norm(HEAD)
        yield f"{block}.attn_k_norm.weight", weights.norm(HEAD)
        yield f"{block}.attn_output.weight", weights.matrix(WIDTH, HEADS * HEAD)
        yield f"{block}.ffn_norm.weight", weights.norm(WIDTH)
        yield f"{block}.ffn_gate.weight", weights.matrix(INTERMEDIATE, WIDTH)
        yield f"{block}.ffn_up.weight", weights.matrix(INTERMEDIATE, WIDTH)
        yield f"{block}.ffn_down.weight", weights.matrix(WIDTH, INTERMEDIATE)
    yield "output_norm.weight", weights.norm(WIDTH)
    yield "cls.output.weight", weights.matrix(2, WIDTH)
