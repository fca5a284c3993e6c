"""tokenizer.json of Qwen3 from a GGUF file: a byte-level BPE, with the pre-tokenizer that the file's kind
names.
"""

from __future__ import annotations

from typing import Any

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.gguf import origin
from rerank_runtime.gguf.layout import refusal
from rerank_runtime.gguf.reader import GgufFile
from rerank_runtime.gguf.vocabulary import TokenType, Vocabulary

# How a text is cut before merging, by llama.cpp's names (tokenizer.ggml.pre); from the tokenizer.json of
# Qwen3.
_SPLITS = {
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
_ADDED = (TokenType.CONTROL, TokenType.USER_DEFINED)


def tokenizer(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    """The content of tokenizer.json.

    Raises:
        Failure: `TokenizerInvalid` for another pre-tokenizer, `FileMissing` or `UnsupportedArchitecture`
            where the file does not say enough.
    """
    kind = file.metadata.text("tokenizer.ggml.pre", "default")
    split = _SPLITS.get(kind)
    if split is None:
        raise Failure(
            Reason.TOKENIZER_INVALID,
            f"The GGUF file cuts texts in the way {kind[:40]!r}, which is not known: its tokenizer cannot be "
            f"rebuilt. {origin.advice(file.metadata)}",
        )
    if vocabulary.of(TokenType.BYTE, TokenType.UNKNOWN):
        raise refusal(file, "has tokens of types that a byte-level BPE does not have")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(vocabulary, index) for index in vocabulary.of(*_ADDED)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
                _BYTE_LEVEL,
            ],
        },
        "post_processor": _post_processor(file, vocabulary),
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {
                token: index
                for index, token in enumerate(vocabulary.tokens)
                if vocabulary.types[index] not in _ADDED
            },
            "merges": _merges(file),
        },
    }


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def _merges(file: GgufFile) -> list[list[str]]:
    # A space inside a part is written as another character, so one space parts the two.
    merges = [merge.split(" ") for merge in file.metadata.texts("tokenizer.ggml.merges")]
    if any(len(merge) != 2 for merge in merges):
        raise refusal(file, "has a merge that is not of two parts")
    return merges


def _added(vocabulary: Vocabulary, index: int) -> dict[str, Any]:
    return {
        "id": index,
        "content": vocabulary.tokens[index],
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": vocabulary.types[index] is TokenType.CONTROL,
    }


def _post_processor(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    before = _asked_for(file, vocabulary, "bos")
    after = _asked_for(file, vocabulary, "eos")
    if not before and not after:
        return _BYTE_LEVEL
    special = {name: vocabulary.roles[role] for role, name in (("bos", before), ("eos", after)) if name}

    def template(sequences: str) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{"Sequence": {"id": name, "type_id": 0}} for name in sequences]
        first = [{"SpecialToken": {"id": before, "type_id": 0}}] if before else []
        last = [{"SpecialToken": {"id": after, "type_id": 0}}] if after else []
        return first + parts + last

    return {
        "type": "TemplateProcessing",
        "single": template("A"),
        "pair": template("AB"),
        "special_tokens": {
            name: {"id": name, "ids": [index], "tokens": [name]} for name, index in special.items()
        },
    }


def _asked_for(file: GgufFile, vocabulary: Vocabulary, role: str) -> str | None:
    """The token that the file wants at an end of each text, or None."""
    if not file.metadata.flag(f"tokenizer.ggml.add_{role}_token", default=False):
        return None
    token = vocabulary.token(role)
    if token is None:
        raise refusal(file, f"wants a token at an end of each text ({role}) and does not name it")
    return token
