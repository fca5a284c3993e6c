"""mxbai-rerank v2: Qwen2 that says 0 or 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from parity import tokenizer_types
from parity.models.base import Family, randomised
from parity.models.causal import DECODER, LENGTH, LastTokenReference
from parity.models.qwen3 import save_qwen_tokenizer

_PREFIX = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each "
    "query-document pair, carefully analyze the semantic relationship between them, then provide your "
    "binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"


class LibraryReference(LastTokenReference):
    """The library mxbai-rerank 0.1.6 (mxbai_rerank_v2.py), which the card uses: head, query, newline,
    document, newline, task and tail are tokenised apart; the score is the logit of `1` less the logit of `0`,
    here after the sigmoid (it keeps the order).
    """

    def ids(self, query: str, document: str) -> list[int]:
        fixed = [self.encode(part) for part in (_PREFIX, "\n", _TASK, _SUFFIX)]
        head, newline, task, tail = fixed
        asked = self.encode(f"query: {query}")
        room = LENGTH - len(asked) - sum(map(len, fixed)) - len(newline)
        return head + asked + newline + self.encode(f"document: {document}", room) + newline + task + tail

    def judged(self, logits: torch.Tensor) -> torch.Tensor:
        zero, one = self.tokenizer.convert_tokens_to_ids(["0", "1"])
        return logits[one] - logits[zero]


def _build(directory: Path, texts: Sequence[str]) -> None:
    # What one text makes one token of and the library's pieces do not, as in the real vocabulary.
    merged = [f"{end}\n" for end in (".", "?", "!", ")", '"', "…")] * 50
    tokenizer = tokenizer_types.qwen([*texts, *merged])
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        tie_word_embeddings=True,
        rope_theta=1_000_000,
        **{key: value for key, value in DECODER.items() if key != "head_dim"},
    )
    randomised(Qwen2ForCausalLM(config)).save_pretrained(directory)
    save_qwen_tokenizer(tokenizer, directory)


FAMILIES = (
    Family(
        "mxbai-v2",
        "mixedbread-ai/mxbai-rerank-base-v2",
        LENGTH,
        _build,
        LibraryReference,
        _PREFIX + _TASK + _SUFFIX + "query: document: ",
    ),
)
