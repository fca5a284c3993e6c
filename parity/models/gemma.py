"""bge-reranker-v2-gemma: Gemma that says Yes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GemmaConfig, GemmaForCausalLM

from parity import tokenizer_types
from parity.models.base import Family, randomised
from parity.models.causal import DECODER, LENGTH, LastTokenReference

_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by "
    "providing a prediction of either 'Yes' or 'No'."
)


class GemmaReference(LastTokenReference):
    """Card of BAAI/bge-reranker-v2-gemma and FlagEmbedding 1.4.2 (decoder_only/base.py): `<bos>`, query,
    newline, passage, newline and prompt, tokenised apart; the passage is cut; the score is the sigmoid of the
    logit of `Yes`.
    """

    def ids(self, query: str, document: str) -> list[int]:
        newline, prompt = self.encode("\n"), self.encode(_PROMPT)
        asked = [self.tokenizer.bos_token_id, *self.encode(f"A: {query}")]
        room = LENGTH - len(asked) - 2 * len(newline) - len(prompt)
        return asked + newline + self.encode(f"B: {document}", room) + newline + prompt

    def judged(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[self.tokenizer.convert_tokens_to_ids("Yes")]


def _build(directory: Path, texts: Sequence[str]) -> None:
    tokenizer = tokenizer_types.gemma(texts)
    config = GemmaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        hidden_act="gelu_pytorch_tanh",
        **DECODER,
    )
    randomised(GemmaForCausalLM(config)).save_pretrained(directory)
    tokenizer_types.save(
        tokenizer,
        directory,
        "GemmaTokenizer",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        add_bos_token=True,
        add_eos_token=False,
    )


FAMILIES = (
    Family("gemma", "BAAI/bge-reranker-v2-gemma", LENGTH, _build, GemmaReference, _PROMPT + "\nA: \nB: "),
)
