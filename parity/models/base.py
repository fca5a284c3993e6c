"""What a family of the parity suite is: a tiny model of its architecture, and its card's computation."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, set_seed

SEED = 20261122
# The smallest head that vLLM's attention takes on a CPU.
HEAD = 32
HIDDEN = 2 * HEAD


class Reference(ABC):
    """A model loaded by transformers, and its scores as the card of its family computes them.

    Pairs go through the model one by one, without padding: a batch would change nothing but rounding.
    """

    sigmoid = True
    """Whether the card's score is the sigmoid of the model's number."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tokenizer: Any = AutoTokenizer.from_pretrained(directory, trust_remote_code=True)
        self.model: Any = self.load(directory)
        self.model.eval()

    @abstractmethod
    def load(self, directory: Path) -> Any:
        """The model, by transformers."""

    @abstractmethod
    def raw(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        """One number a document before any sigmoid, with gradients."""

    def score(self, query: str, documents: Sequence[str]) -> torch.Tensor:
        """One score a document, on the scale of the card."""
        raw = self.raw(query, documents)
        return torch.sigmoid(raw) if self.sigmoid else raw

    @abstractmethod
    def prompts(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        """The token ids that the card's code makes."""

    @abstractmethod
    def trained(self) -> Iterable[torch.nn.Parameter]:
        """What is trained until the known pairs are in the right order: near the head, so that the rest
        stays random.
        """

    def save(self) -> None:
        """Write the weights back."""
        self.model.save_pretrained(self.directory)


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Args:
        name: Short, also the name of the model's directory.
        card: The model whose card is followed.
        length: Tokens that the tiny model takes; the plan must find the same.
        build: Writes the model's files into a directory, weights random from a fixed seed. Its second
            argument is what to train the tokenizer on.
        reference: Loads them again.
        prompt: Text of the prompt, which the tokenizer is to know the words of.
        options: What `rerank-runtime` is asked for, as a ModelDeployment would.
        scale: Of `Reference.score`, as the plan names it: `[0,1]`, `[-1,1]` or `logits`.
        exact: Whether vLLM can be brought to the card's own tokens; where not, the difference is stated.
        overlong: Whether the card says how one document too long for the model is cut.
        note: What the row says besides its figures.
    """

    name: str
    card: str
    length: int
    build: Callable[[Path, Sequence[str]], None]
    reference: type[Reference]
    prompt: str = ""
    options: tuple[str, ...] = ()
    scale: str = "[0,1]"
    exact: bool = True
    overlong: bool = True
    note: str = ""


def randomised(model: Any, seed: int = SEED) -> Any:
    """Give a model weights large enough that every text moves its score; norms stay as they are."""
    set_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.18 if "embed" in name else 1.1 * parameter.shape[-1] ** -0.5)
            elif "norm" not in name.lower():
                parameter.normal_(0.0, 0.1)
    return model


def edit_config(directory: Path, **changes: Any) -> None:
    """Set entries of config.json; None removes one."""
    path = directory / "config.json"
    config = json.loads(path.read_bytes()) | changes
    path.write_text(
        json.dumps({k: v for k, v in config.items() if v is not None}, indent=1), encoding="utf-8"
    )
