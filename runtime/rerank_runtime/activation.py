"""Which range a cross-encoder's scores have: what vLLM applies after the classification head.

vLLM's order (vllm/model_executor/layers/pooler/activations.py, 0.32.0: get_act_fn): `problem_type`, then the
activation that sentence-transformers recorded in config.json, then a sigmoid for one label. What
sentence-transformers 5.4 and later record in a file of their own, vLLM must be told.
"""

from __future__ import annotations

from typing import Any

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.model_files import ModelFiles

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


def score_range(files: ModelFiles) -> str:
    """The range of the scores of a model with one label: `[0,1]` or `logits`.

    Raises:
        Failure: `UnsupportedArchitecture` where the model asks for an activation that is neither.
    """
    problem_type = files.config.get("problem_type")
    if isinstance(problem_type, str) and problem_type in _PROBLEM_TYPES:
        return _PROBLEM_TYPES[problem_type]
    name = _in_config(files.config) or _recorded(files)
    if name is None:
        return UNIT
    if not isinstance(name, str) or name not in _RANGES:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model asks for the score activation {name}; supported are {', '.join(sorted(_RANGES))}.",
        )
    return _RANGES[name]


def overrides(files: ModelFiles) -> dict[str, Any]:
    """What vLLM's --hf-overrides must say of the activation."""
    recorded = _recorded(files)
    if recorded is None or _in_config(files.config):
        return {}
    return {"sentence_transformers": {"activation_fn": recorded}}


def _in_config(config: dict[str, Any]) -> Any:
    recorded = config.get("sentence_transformers")
    if isinstance(recorded, dict) and "activation_fn" in recorded:
        return recorded["activation_fn"]
    return config.get("sbert_ce_default_activation_function")


def _recorded(files: ModelFiles) -> Any:
    settings = files.sentence_transformers
    return settings.get("activation_fn") if settings.get("model_type") == "CrossEncoder" else None
