"""The tokens of a GGUF file, as llama.cpp's converter writes them, whatever the kind of tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from rerank_runtime.gguf.layout import refusal
from rerank_runtime.gguf.reader import GgufFile

# What the converter writes where a model has more embeddings than its tokenizer has tokens.
_FILLER = re.compile(r"\[PAD\d+\]")


class TokenType(IntEnum):
    """llama.cpp's kinds of tokens (llama_token_type)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, and the ids with a role. Fillers at the end are left out: no tokenizer has them."""

    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    roles: dict[str, int]
    """Ids of bos, eos, unk, sep, pad, cls, mask, as far as the file names them."""

    def token(self, role: str) -> str | None:
        index = self.roles.get(role)
        return None if index is None else self.tokens[index]

    def of(self, *types: TokenType) -> list[int]:
        """The ids of the tokens of some kinds."""
        return [index for index, kind in enumerate(self.types) if kind in types]


_ROLE_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",  # the misspelling is the format's
    "pad": "tokenizer.ggml.padding_token_id",
    "cls": "tokenizer.ggml.cls_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}


def read(file: GgufFile) -> Vocabulary:
    """The file's vocabulary.

    Raises:
        Failure: `FileMissing` where a list is absent, `UnsupportedArchitecture` where they do not fit
            together.
    """
    tokens = list(file.metadata.texts("tokenizer.ggml.tokens"))
    numbers = [int(n) for n in file.metadata.array("tokenizer.ggml.token_type", "iu")]
    if len(numbers) != len(tokens):
        raise refusal(file, f"has {len(tokens)} tokens and {len(numbers)} types of them")
    if not set(numbers) <= set(TokenType):
        raise refusal(file, "has tokens of unknown types")
    types = [TokenType(n) for n in numbers]
    roles = {role: file.metadata.integer(key) for role, key in _ROLE_KEYS.items() if key in file.metadata}
    if any(index >= len(tokens) for index in roles.values()):
        raise refusal(file, f"gives a role to a token beyond its {len(tokens)}")
    mask = roles.get("mask")
    if mask is not None and types[mask] is TokenType.UNUSED and _FILLER.fullmatch(tokens[mask]):
        # SentencePiece does not know the mask token, so the converter had no name for it.
        tokens[mask], types[mask] = "<mask>", TokenType.CONTROL
    while types and types[-1] is TokenType.UNUSED and _FILLER.fullmatch(tokens[-1]):
        tokens.pop()
        types.pop()
    if any(_filler(*pair) for pair in zip(tokens, types, strict=True)):
        raise refusal(file, "has fillers between its tokens")
    if len(set(tokens)) != len(tokens):
        raise refusal(file, "has the same token twice")
    if any(index >= len(tokens) for index in roles.values()):
        raise refusal(file, "gives a role to a filler")
    return Vocabulary(tuple(tokens), tuple(types), roles)


def _filler(token: str, kind: TokenType) -> bool:
    return kind is TokenType.UNUSED and _FILLER.fullmatch(token) is not None
