"""Which range a cross-encoder's scores have: what vLLM applies after the classification head.

vLLM's order (vllm/model_executor/layers/pooler/activations.py, 0.32.0: get_act_fn): `problem_type`, then the
activation that sentence-transformers recorded, then a sigmoid for one label.
"""

from __future__ import annotations

from typing import Any

from rerank_runtime.failure import Failure, Reason

UNIT = "[0,1]"
COSINE = "[-1,1]"
LOGITS = "logits"

_RANGES = {
    "torch.nn.modules.linear.Identity": LOGITS,
    "torch.nn.modules.activation.Sigmoid": UNIT,
}
_PROBLEM_TYPES = {
    "regression": LOGITS,
    "single_label_classification": UNIT,
    "multi_label_classification": UNIT,
}


def score_range(config: dict[str, Any]) -> str:
    """The range of the scores of a model with one label: `[0,1]` or `logits`.

    Raises:
        Failure: `UnsupportedArchitecture` where the model asks for an activation that is neither.
    """
    problem_type = config.get("problem_type")
    if problem_type in _PROBLEM_TYPES:
        return _PROBLEM_TYPES[problem_type]
    recorded = config.get("sentence_transformers")
    name = (
        recorded.get("activation_fn") if isinstance(recorded, dict) and "activation_fn" in recorded else None
    )
    name = name or config.get("sbert_ce_default_activation_function")
    if name is None:
        return UNIT
    if name not in _RANGES:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model asks for the score activation {name}; supported are {', '.join(sorted(_RANGES))}.",
        )
    return _RANGES[name]
