"""Llama-Nemotron: a Llama that reads in both directions, with a score on the mean of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaModel

from parity import tokenizer_types
from parity.models.base import HIDDEN, Family, Reference, edit_config, randomised
from parity.models.causal import DECODER, LENGTH

# The configuration class that the repository brings, which must be trusted to be loaded.
_REMOTE = '''"""Configuration of the model, as its repository brings it."""

from transformers import LlamaConfig


class LlamaBidirectionalConfig(LlamaConfig):
    model_type = "llama_bidirec"

    def __init__(self, pooling="avg", temperature=1.0, **kwargs):
        super().__init__(**kwargs)
        self.pooling = pooling
        self.temperature = temperature
'''


class _Scorer(torch.nn.Module):  # type: ignore[misc]  # torch is not where mypy runs
    """The definition: Llama without the causal mask, the mean of the last states, one row."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.model = LlamaModel(config)
        self.score = torch.nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        # A four-dimensional mask is taken as it is: zeros hide nothing.
        everything = torch.zeros(1, 1, ids.shape[1], ids.shape[1])
        states = self.model(ids, attention_mask=everything).last_hidden_state
        logits: torch.Tensor = self.score(states.mean(dim=1)).view(-1)
        return logits


class NemotronReference(Reference):
    """Card of nvidia/llama-nemotron-rerank-1b-v2: `question:… passage:…` as one text with its begin token,
    cut at the end to the model's length; mean pooling; the logit (the sigmoid is the reader's).
    """

    sigmoid = False

    def load(self, directory: Path) -> Any:
        scorer = _Scorer(_config(self.tokenizer.vocab_size + len(self.tokenizer.get_added_vocab())))
        scorer.load_state_dict(load_file(directory / "model.safetensors"))
        return scorer

    def prompts(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        texts = (f"question:{query} \n \n passage:{document}" for document in documents)
        return [list(self.tokenizer.encode(text))[:LENGTH] for text in texts]

    def raw(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        return torch.cat([self.model(torch.tensor([ids])) for ids in self.prompts(query, documents)])

    def trained(self) -> Iterable[torch.nn.Parameter]:
        yield from self.model.score.parameters()
        yield from self.model.model.norm.parameters()
        yield from self.model.model.layers[-1].parameters()

    def save(self) -> None:
        save_file(self.model.state_dict(), self.directory / "model.safetensors", {"format": "pt"})


def _config(vocabulary: int) -> LlamaConfig:
    return LlamaConfig(vocab_size=vocabulary, rope_theta=500_000.0, attn_implementation="eager", **DECODER)


def _build(directory: Path, texts: Sequence[str]) -> None:
    tokenizer = tokenizer_types.llama3(texts)
    config = _config(tokenizer.get_vocab_size())
    scorer = randomised(_Scorer(config))
    save_file(scorer.state_dict(), directory / "model.safetensors", {"format": "pt"})
    config.save_pretrained(directory)
    edit_config(
        directory,
        architectures=["LlamaBidirectionalForSequenceClassification"],
        auto_map={"AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig"},
        model_type="llama_bidirec",
        pooling="avg",
        temperature=1.0,
        num_labels=None,
        id2label={"0": "LABEL_0"},
        label2id={"LABEL_0": 0},
        tie_word_embeddings=False,
        hidden_size=HIDDEN,
        dtype="float32",
        pad_token_id=tokenizer.token_to_id("<|eot_id|>"),
        bos_token_id=tokenizer.token_to_id("<|begin_of_text|>"),
        eos_token_id=tokenizer.token_to_id("<|end_of_text|>"),
    )
    (directory / "llama_bidirectional_model.py").write_text(_REMOTE, encoding="utf-8")
    tokenizer_types.save(
        tokenizer,
        directory,
        "PreTrainedTokenizerFast",
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|eot_id|>",
        model_max_length=LENGTH,
    )


FAMILIES = (
    Family(
        "nemotron",
        "nvidia/llama-nemotron-rerank-1b-v2",
        LENGTH,
        _build,
        NemotronReference,
        "question: \n \n passage:",
        scale="logits",
        options=("--trust-remote-code",),
    ),
)
