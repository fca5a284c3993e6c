"""How much memory serving takes, computed from what the model's files say. Pure; sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rerank_runtime.families import checks
from rerank_runtime.options import Device

GIB = 2**30
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# What is there before any weights: on a CPU vLLM's three processes, as measured; on a GPU the CUDA context
# and the libraries' workspaces, as estimated.
_BASE = {Device.CPU: 2 * GIB, Device.CUDA: GIB}
# What GPUs that share a model add to that, as estimated: NCCL's buffers.
_EXCHANGE = GIB // 2
# Tokens of one step by default (vLLM 0.32.0, engine/arg_utils.py). Encoders read a whole text in one step.
_STEP_TOKENS = {Device.CPU: 2048, Device.CUDA: 8192}
# vLLM's cache is in blocks of at most so many tokens (CPU), and keeps one for itself.
_BLOCK = 128
# Hidden states that a layer holds at once: residual, normalised, queries, keys, values, attention, output.
_HIDDEN_STATES = 8


@dataclass(frozen=True)
class Need:
    """What serving takes, on each GPU where a model is split over several."""

    weights: int
    cache: int
    """Keys and values of one text of the full length; 0 where the attention keeps none."""
    activations: int
    base: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.activations + self.base

    def describe(self) -> str:
        """The parts, for a person."""
        parts = [
            ("weights", self.weights),
            ("cache", self.cache),
            ("working memory", self.activations + self.base),
        ]
        return ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts if size)


def need(
    config: dict[str, Any],
    parameters: int,
    *,
    dtype: str,
    length: int,
    caches: bool,
    device: Device,
    split: int = 1,
) -> Need:
    """What a model takes.

    Args:
        config: config.json.
        parameters: Number of parameters.
        dtype: Precision of weights and cache.
        length: Longest text in tokens.
        caches: Whether the attention keeps keys and values.
        device: What the model runs on.
        split: Over how many GPUs it is split.

    Raises:
        Failure: `FileMissing` where the configuration does not give the sizes.
    """
    size = DTYPE_BYTES[dtype]
    hidden = checks.integer(config, "hidden_size")
    intermediate = checks.integer(config, "intermediate_size", 4 * hidden)
    step = _STEP_TOKENS[device] if caches else max(_STEP_TOKENS[device], length)
    return Need(
        weights=-(-parameters // split) * size,
        cache=_cache(config, length, split) * size if caches else 0,
        # Each GPU has the hidden states whole, or nearly.
        activations=step * (2 * -(-intermediate // split) + _HIDDEN_STATES * hidden) * size,
        base=_BASE[device] + (_EXCHANGE if split > 1 else 0),
    )


def head_size(config: dict[str, Any]) -> int:
    """Size of an attention head.

    Raises:
        Failure: `FileMissing` where the configuration does not give it.
    """
    hidden, heads = checks.integer(config, "hidden_size"), checks.integer(config, "num_attention_heads")
    return checks.integer(config, "head_dim", max(1, hidden // heads))


def key_value_heads(config: dict[str, Any]) -> int:
    """How many heads keys and values have.

    Raises:
        Failure: `FileMissing` where the configuration does not give it.
    """
    return checks.integer(config, "num_key_value_heads", checks.integer(config, "num_attention_heads"))


def _cache(config: dict[str, Any], length: int, split: int) -> int:
    heads = -(-key_value_heads(config) // split)  # one that there are too few of is kept more than once
    layers = checks.integer(config, "num_hidden_layers")
    tokens = (-(-length // _BLOCK) + 1) * _BLOCK
    return 2 * layers * heads * head_size(config) * tokens
