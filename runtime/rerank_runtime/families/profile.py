"""What a family decides about a model of it. `rerank_runtime.plan` adds what depends on the hardware."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rerank_runtime.options import Method


@dataclass(frozen=True)
class Profile:
    """How a model is to be served, whatever it runs on. Lengths are in tokens."""

    family: str
    score_range: str
    longest: int
    """Longest text that the model reads."""
    method: Method = Method.CROSS_ENCODER
    usual: int | None = None
    """Length that is served unless another is asked for; None: the longest."""
    convert: str = "classify"
    hf_overrides: dict[str, Any] = field(default_factory=dict)
    pooler_config: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    """Name of a template of this package."""
    instruction: str | None = None
    """The model card's own instruction."""
    takes_instruction: bool = False
    caches: bool = False
    """Keeps keys and values of each token while it reads: causal attention."""
    half: str = "float16"
    """Half precision for weights that were saved in full."""
    without_bfloat16: str = "float16"
    """What takes bfloat16's place on a GPU without it. Float16 ends at 65,504, which some models exceed."""
    pointwise: bool = True
    max_documents: int | None = None
    remote_code: bool = False
