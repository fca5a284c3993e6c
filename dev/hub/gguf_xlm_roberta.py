"""An XLM-RoBERTa cross-encoder in small, as a GGUF file by the layout of llama.cpp's converter
(conversion/bert.py, XLMRobertaModel): what published GGUF files of BGE rerankers are.

Its weights are random, so it ranks nothing. Its tokenizer is made by hand: a piece for each Latin character
and for the space before a word. Deterministic, as word_overlap.
"""

from __future__ import annotations

import string
from collections.abc import Iterator

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from dev.hub.gguf_file import TokenType, Weights, written
from dev.hub.word_overlap import Array

WIDTH, BLOCKS, HEADS, INTERMEDIATE = 128, 2, 2, 256
POSITIONS = 1024

_KINDS = {
    "<s>": TokenType.CONTROL,
    "<pad>": TokenType.CONTROL,
    "</s>": TokenType.CONTROL,
    "<unk>": TokenType.UNKNOWN,
    **dict.fromkeys(["▁", *string.ascii_letters, *string.digits, *string.punctuation], TokenType.NORMAL),
    "<mask>": TokenType.CONTROL,
}
_TOKENS = list(_KINDS)
# Log-probability of a piece: all are as likely.
_SCORE = -5.0


def file(quantisation: Kind) -> bytes:
    """The whole file, with its matrices in that type."""
    return written("bert", _describe, _tensors(), quantisation)


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("BGE Reranker Tiny")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    _add_tokenizer(writer)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(_TOKENS)
    writer.add_token_scores([_SCORE if kind is TokenType.NORMAL else 0.0 for kind in _KINDS.values()])
    writer.add_token_types(list(_KINDS.values()))
    writer.add_add_space_prefix(True)
    writer.add_token_type_count(1)
    writer.add_remove_extra_whitespaces(True)
    writer.add_bos_token_id(_TOKENS.index("<s>"))
    writer.add_eos_token_id(_TOKENS.index("</s>"))
    writer.add_unk_token_id(_TOKENS.index("<unk>"))
    writer.add_sep_token_id(_TOKENS.index("</s>"))
    writer.add_pad_token_id(_TOKENS.index("<pad>"))
    writer.add_uint32("tokenizer.ggml.cls_token_id", _TOKENS.index("<s>"))
    writer.add_mask_token_id(_TOKENS.index("<mask>"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def _tensors() -> Iterator[tuple[str, Array]]:
    weights = Weights()

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, Array]]:
        yield f"{name}.weight", weights.matrix(rows, columns)
        yield f"{name}.bias", weights.vector(rows)

    def norm(name: str) -> Iterator[tuple[str, Array]]:
        yield f"{name}.weight", weights.norm(WIDTH)
        yield f"{name}.bias", weights.vector(WIDTH)

    yield "token_embd.weight", weights.matrix(len(_TOKENS), WIDTH)
    yield "position_embd.weight", weights.matrix(POSITIONS, WIDTH)
    yield "token_types.weight", np.zeros((1, WIDTH), dtype=np.float32)
    yield from norm("token_embd_norm")
    for index in range(BLOCKS):
        block = f"blk.{index}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield from linear(f"{block}.{name}", WIDTH, WIDTH)
        yield from norm(f"{block}.attn_output_norm")
        yield from linear(f"{block}.ffn_up", INTERMEDIATE, WIDTH)
        yield from linear(f"{block}.ffn_down", WIDTH, INTERMEDIATE)
        yield from norm(f"{block}.layer_output_norm")
    yield from linear("cls", WIDTH, WIDTH)
    yield from linear("cls.output", 1, WIDTH)
