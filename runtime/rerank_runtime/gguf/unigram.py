"""tokenizer.json of XLM-RoBERTa from a GGUF file: SentencePiece's unigram model as transformers runs it
(transformers/models/xlm_roberta/tokenization_xlm_roberta.py).
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from rerank_runtime.gguf.layout import refusal
from rerank_runtime.gguf.reader import GgufFile
from rerank_runtime.gguf.vocabulary import TokenType, Vocabulary

_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def tokenizer(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    """The content of tokenizer.json.

    Raises:
        Failure: `FileMissing` where the file does not say enough, `UnsupportedArchitecture` for byte fallback
            and other things that XLM-RoBERTa's tokenizer does not have.
    """
    scores = file.metadata.array("tokenizer.ggml.scores", "f").astype(np.float64)[: len(vocabulary.tokens)]
    if len(scores) < len(vocabulary.tokens) or not np.isfinite(scores).all():
        raise refusal(file, "has tokens without scores")
    if vocabulary.of(TokenType.BYTE):
        raise refusal(file, "has a tokenizer that falls back to bytes, which XLM-RoBERTa's does not")
    if not file.metadata.flag("tokenizer.ggml.add_space_prefix", default=True):
        raise refusal(file, "has a tokenizer that puts no space before a text, which XLM-RoBERTa's does")
    unknown = vocabulary.of(TokenType.UNKNOWN)
    if len(unknown) != 1:
        raise refusal(file, f"has {len(unknown)} tokens for what is unknown")
    mask = vocabulary.roles.get("mask")
    # The mask has no score of its own in SentencePiece, and the lowest score of all sets that of the unknown.
    pieces = [
        [token, 0.0 if index == mask else float(score)]
        for index, (token, score) in enumerate(zip(vocabulary.tokens, scores, strict=True))
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(vocabulary, index) for index in sorted({*_special(vocabulary), *unknown})],
        "normalizer": _normalizer(file),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, _METASPACE]},
        "post_processor": _post_processor(file, vocabulary),
        "decoder": _METASPACE,
        "model": {"type": "Unigram", "unk_id": unknown[0], "vocab": pieces, "byte_fallback": False},
    }


def _special(vocabulary: Vocabulary) -> list[int]:
    return vocabulary.of(TokenType.CONTROL, TokenType.USER_DEFINED)


def _added(vocabulary: Vocabulary, index: int) -> dict[str, Any]:
    return {
        "id": index,
        "content": vocabulary.tokens[index],
        "single_word": False,
        "lstrip": index == vocabulary.roles.get("mask"),
        "rstrip": False,
        "normalized": False,
        "special": vocabulary.types[index] is not TokenType.USER_DEFINED,
    }


def _normalizer(file: GgufFile) -> dict[str, Any] | None:
    if "tokenizer.ggml.precompiled_charsmap" not in file.metadata:
        return None
    # The format has it as a list of bytes, of either sign.
    charsmap = file.metadata.array("tokenizer.ggml.precompiled_charsmap", "iu")
    if charsmap.dtype.itemsize != 1:
        raise refusal(file, "has a character map that is no list of bytes")
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap.tobytes()).decode()}


def _post_processor(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    """`<s> query </s></s> document </s>`, all of type 0."""
    begin, end = vocabulary.roles.get("bos"), vocabulary.roles.get("eos")
    if begin is None or end is None:
        raise refusal(file, "does not name its first and its last token")
    first, last = vocabulary.tokens[begin], vocabulary.tokens[end]

    def special(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    def sequence(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    ids = {first: begin, last: end}
    return {
        "type": "TemplateProcessing",
        "single": [special(first), sequence("A"), special(last)],
        "pair": [
            *(special(first), sequence("A"), special(last)),
            *(special(last), sequence("B"), special(last)),
        ],
        "special_tokens": {
            name: {"id": name, "ids": [index], "tokens": [name]} for name, index in ids.items()
        },
    }
