"""What a ModelDeployment asks of the way its model is served. Imports nothing of ours, and nothing slow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """How pairs are scored, as asked for. `Auto` never falls back to cosines: that must be said."""

    AUTO = "Auto"
    CROSS_ENCODER = "CrossEncoder"
    COSINE = "Cosine"


class Device(StrEnum):
    """What the model runs on."""

    CPU = "cpu"
    CUDA = "cuda"


class OnOverflow(StrEnum):
    """What happens to texts that are longer than a limit."""

    TRUNCATE = "Truncate"
    REJECT = "Reject"


@dataclass(frozen=True)
class Options:
    """What the ModelDeployment asks for, and what the container has. None leaves the choice to the plan.

    Args:
        method: How pairs are scored.
        device: What the model runs on.
        split: Over how many GPUs the model is split.
        memory_limit: Bytes that the container may use, or None where there is no limit.
        gpus: How many GPUs the container sees, or None where that is not known.
        gpu_memory: Bytes of the smallest of them, or None where they are not known.
        gpu_capability: CUDA's compute capability of the oldest of them, or None where it is not known.
        instruction: What to look for, in words; only for models whose prompt has a place for it.
        max_model_len: Longest query and document together, in tokens.
        dtype: `float32`, `float16` or `bfloat16`.
        gpu_memory_utilization: Share of the GPU's memory that vLLM may claim, above 0 and at most 1.
        trust_remote_code: Whether Python files of the model's repository may be run.
        max_tokens_per_document: Longest document in tokens.
        max_tokens_per_query: Longest query in tokens.
        on_overflow: What happens to longer texts.
    """

    method: Method = Method.AUTO
    device: Device = Device.CPU
    split: int = 1
    memory_limit: int | None = None
    gpus: int | None = None
    gpu_memory: int | None = None
    gpu_capability: tuple[int, int] | None = None
    instruction: str | None = None
    max_model_len: int | None = None
    dtype: str | None = None
    gpu_memory_utilization: float | None = None
    trust_remote_code: bool = False
    max_tokens_per_document: int | None = None
    max_tokens_per_query: int | None = None
    on_overflow: OnOverflow = OnOverflow.TRUNCATE
