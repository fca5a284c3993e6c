"""The decision how vLLM serves a model, as a value: `rerank_runtime.plan` makes it, all else reads it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

from rerank_runtime import chat_template
from rerank_runtime.options import Method, OnOverflow


@dataclass(frozen=True)
class Truncation:
    """Which texts are too long, in tokens, and what happens to them. None: only the model's length counts."""

    max_tokens_per_document: int | None = None
    max_tokens_per_query: int | None = None
    on_overflow: OnOverflow = OnOverflow.TRUNCATE


@dataclass(frozen=True)
class ServePlan:
    """How vLLM is to serve a model, and what it must look like once it does."""

    family: str
    architecture: str
    """As config.json names it; hf_overrides may tell vLLM another one."""
    method: Method
    """CrossEncoder or Cosine."""
    score_range: str
    """`[0,1]`, `[-1,1]` or `logits`."""
    convert: str
    """vLLM's --convert: `classify`, `embed` or `none`."""
    hf_overrides: dict[str, Any]
    """vLLM's --hf-overrides: what config.json leaves out."""
    dtype: str
    """vLLM's --dtype."""
    context_length: int
    """Longest query and document together, template included, in tokens; vLLM's --max-model-len."""
    parameters: int
    weights_bytes: int
    """Size of the weights' files."""
    memory_bytes: int = 0
    """What serving needs at least, on all GPUs together or in the container."""
    split: int = 1
    """vLLM's --tensor-parallel-size: over how many GPUs the model is split."""
    kv_cache_bytes: int | None = None
    """KV cache for one text of the full length, on each GPU; None where the attention keeps none."""
    gpu_memory_utilization: float | None = None
    """vLLM's --gpu-memory-utilization; None leaves vLLM's default."""
    pooler_config: dict[str, Any] = field(default_factory=dict)
    """vLLM's --pooler-config."""
    template: str | None = None
    """The whole chat template, default instruction included; None for models that read pairs of texts."""
    instruction: str | None = None
    """The instruction in effect; None where the model's prompt has no place for one."""
    pointwise: bool = True
    """Each document's score is its own; False where documents of one request are read together (listwise)."""
    max_documents: int | None = None
    """Most documents that a listwise model reads at once."""
    remote_code: bool = False
    """vLLM's --trust-remote-code."""
    truncation: Truncation = field(default_factory=Truncation)

    @property
    def prefix_caching(self) -> bool:
        """Whether the same beginning is read once: vLLM's default where attention is causal."""
        return self.kv_cache_bytes is not None

    @property
    def template_sha256(self) -> str | None:
        """SHA-256 of the template in hex digits."""
        return None if self.template is None else hashlib.sha256(self.template.encode()).hexdigest()

    def render(self, query: str, document: str, instruction: str | None = None) -> str:
        """The prompt that vLLM makes of a pair with this plan's template.

        Args:
            query: The query.
            document: The document.
            instruction: As a request may give it; None takes the plan's.

        Raises:
            ValueError: The model reads pairs and has no template.
        """
        if self.template is None:
            raise ValueError(f"{self.architecture} has no template")
        return chat_template.render(self.template, query, document, instruction)

    def as_json(self) -> dict[str, Any]:
        """For people and tests: `rerank-runtime plan` prints it. The template is told by its hash."""
        body = asdict(self)
        del body["template"]
        return body | {"template_sha256": self.template_sha256}
