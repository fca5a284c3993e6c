"""The tokenizer's files beside converted weights: the repository's own where they agree with the GGUF file,
otherwise rebuilt from its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.gguf import byte_bpe, origin, unigram, vocabulary
from rerank_runtime.gguf.reader import GgufFile
from rerank_runtime.gguf.vocabulary import Vocabulary

_KINDS: dict[str, Callable[[GgufFile, Vocabulary], dict[str, Any]]] = {
    "t5": unigram.tokenizer,
    "gpt2": byte_bpe.tokenizer,
}
COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json")
# Scripts, spaces and symbols: what a damaged table stumbles over, before anything is served.
_SAMPLE = (
    "What is a panda?  \t Ｗｈａｔ ﬁ 大熊猫 パンダ панда باندا \u200b\U0001f43c\r\n\n 12345 it's <s> </s>"
)


def files(file: GgufFile, base: Mapping[str, Path], length: int) -> dict[str, bytes]:
    """The contents of the tokenizer's files by name.

    Args:
        file: The GGUF file.
        base: Files of the same repository by name.
        length: The longest sequence in tokens.

    Raises:
        Failure: `TokenizerInvalid` and others, where no tokenizer like the original's can be made.
    """
    known = vocabulary.read(file)
    own = base["tokenizer.json"].read_bytes() if "tokenizer.json" in base else None
    if own is not None and _same(_load(file, own), known):
        return {"tokenizer.json": own} | {n: base[n].read_bytes() for n in COMPANIONS if n in base}
    kind = file.metadata.text("tokenizer.ggml.model", "none")
    build = _KINDS.get(kind)
    if build is None:
        raise Failure(
            Reason.TOKENIZER_INVALID,
            f"The GGUF file's tokenizer is of kind {kind[:40]!r}, which cannot be rebuilt from it. "
            f"{origin.advice(file.metadata)}",
        )
    content = json.dumps(build(file, known), ensure_ascii=False).encode()
    _load(file, content)
    return {"tokenizer.json": content, "tokenizer_config.json": _config(known, length)}


def _config(known: Vocabulary, length: int) -> bytes:
    tokens = {f"{role}_token": known.token(role) for role in known.roles}
    return json.dumps(
        {
            # The class that takes tokenizer.json as it is.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": length,
            "clean_up_tokenization_spaces": False,
            **tokens,
        },
        ensure_ascii=False,
        indent=2,
    ).encode()


def _load(file: GgufFile, content: bytes) -> Tokenizer:
    """The tokenizer, which has shown that it can encode."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.encode(_SAMPLE, _SAMPLE)
    except BaseException as error:
        # The library's own assertions come as a class that is no Exception and that it does not export.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise Failure(
            Reason.TOKENIZER_INVALID,
            f"The tokenizer of the GGUF file does not work: {str(error)[:200]}. "
            f"{origin.advice(file.metadata)}",
        ) from error
    return tokenizer


def _same(tokenizer: Tokenizer, known: Vocabulary) -> bool:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    return size == len(known.tokens) and all(
        tokenizer.id_to_token(index) == token for index, token in enumerate(known.tokens)
    )
