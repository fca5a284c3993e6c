"""Qwen3-Reranker, as published (a language model that says yes or no) and converted to a classifier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

from parity import tokenizer_types
from parity.models.base import Family, randomised
from parity.models.causal import DECODER, LENGTH, LastTokenReference

_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def _pair(query: str, document: str, instruction: str) -> str:
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"


class OriginalReference(LastTokenReference):
    """Card of Qwen/Qwen3-Reranker-0.6B ("Transformers Usage"): the pair is tokenised between a fixed head and
    tail and cut so that both fit; the score is the softmax over the logits of `no` and `yes` after the tail.
    """

    instruction = _INSTRUCTION

    def ids(self, query: str, document: str) -> list[int]:
        head, tail = self.encode(_PREFIX), self.encode(_SUFFIX)
        pair = self.encode(_pair(query, document, self.instruction), LENGTH - len(head) - len(tail))
        return head + pair + tail

    def judged(self, logits: torch.Tensor) -> torch.Tensor:
        no, yes = self.tokenizer.convert_tokens_to_ids(["no", "yes"])
        return logits[yes] - logits[no]


class InstructedReference(OriginalReference):
    """The same with an instruction of one's own, which the card recommends."""

    instruction = 'Given the name of an animal, find texts about what it eats. Use "quotes" and {braces}.'


class ConvertedReference(OriginalReference):
    """Card of tomaarsen/Qwen3-Reranker-0.6B-seq-cls: the same prompt; one logit of the last token."""

    def load(self, directory: Path) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)

    def raw(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        prompts = (torch.tensor([ids]) for ids in self.prompts(query, documents))
        return torch.cat([self.model(ids).logits.view(-1) for ids in prompts])

    def trained(self) -> Iterable[torch.nn.Parameter]:
        yield from self.model.score.parameters()
        yield from super().trained()


class InstructedConvertedReference(InstructedReference, ConvertedReference):
    """The same with an instruction of one's own."""


def save_qwen_tokenizer(tokenizer: Any, directory: Path) -> None:
    """As the repositories of Qwen2 and Qwen3 have it."""
    tokenizer_types.save(
        tokenizer,
        directory,
        "Qwen2Tokenizer",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
        split_special_tokens=False,
        add_bos_token=False,
        add_prefix_space=False,
        errors="replace",
        unk_token=None,
        bos_token=None,
    )


def _config(tokenizer: Any, **more: Any) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        rope_theta=1_000_000,
        **DECODER | more,
    )


def _tied(directory: Path, texts: Sequence[str]) -> None:
    original(directory, texts, tied=True)


def _untied(directory: Path, texts: Sequence[str]) -> None:
    original(directory, texts, tied=False)


def original(directory: Path, texts: Sequence[str], *, tied: bool, **sizes: int) -> None:
    """A language model as published, of other sizes than the suite's where they are given."""
    tokenizer = tokenizer_types.qwen(texts)
    config = _config(tokenizer, tie_word_embeddings=tied, **sizes)
    randomised(Qwen3ForCausalLM(config)).save_pretrained(directory)
    save_qwen_tokenizer(tokenizer, directory)


def _converted(directory: Path, texts: Sequence[str]) -> None:
    tokenizer = tokenizer_types.qwen(texts)
    config = _config(tokenizer, tie_word_embeddings=True, num_labels=1)
    randomised(Qwen3ForSequenceClassification(config)).save_pretrained(directory)
    save_qwen_tokenizer(tokenizer, directory)


PROMPT = _PREFIX + _pair("", "", _INSTRUCTION) + _SUFFIX
INSTRUCTED = (f"--instruction={InstructedReference.instruction}",)
FAMILIES = (
    Family("qwen3", "Qwen/Qwen3-Reranker-0.6B (tied head)", LENGTH, _tied, OriginalReference, PROMPT),
    Family(
        "qwen3-instruction",
        "Qwen/Qwen3-Reranker-0.6B with an instruction",
        LENGTH,
        _tied,
        InstructedReference,
        PROMPT,
        options=INSTRUCTED,
    ),
    Family("qwen3-untied", "Qwen/Qwen3-Reranker-8B (own head)", LENGTH, _untied, OriginalReference, PROMPT),
    Family(
        "qwen3-untied-instruction",
        "Qwen/Qwen3-Reranker-8B with an instruction",
        LENGTH,
        _untied,
        InstructedReference,
        PROMPT,
        options=INSTRUCTED,
    ),
    Family(
        "qwen3-seq-cls",
        "tomaarsen/Qwen3-Reranker-0.6B-seq-cls",
        LENGTH,
        _converted,
        ConvertedReference,
        PROMPT,
    ),
    Family(
        "qwen3-seq-cls-instruction",
        "tomaarsen/Qwen3-Reranker-0.6B-seq-cls with an instruction",
        LENGTH,
        _converted,
        InstructedConvertedReference,
        PROMPT,
        options=INSTRUCTED,
    ),
)
