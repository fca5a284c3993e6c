"""What `rerank-runtime serve` is told of the engine and of scoring: arguments, and one variable.

Only what differs from the defaults is told, so that a new field changes the pods of those who use it, and
restarts nobody else's.
"""

import json

from rerank_api.effective import Effective
from rerank_operator.resources import Object

VERIFICATION_VARIABLE = "RERANK_VERIFICATION"


def arguments(effective: Effective) -> list[str]:
    """The options, as `--name=value`."""
    engine, scoring = effective.engine, effective.scoring
    truncation = scoring.truncation
    dtype = None if engine.dtype == "auto" else engine.dtype
    overflow = None if truncation.on_overflow == "Truncate" else truncation.on_overflow
    options = {
        "--split": effective.resources.gpu.count if effective.resources.gpu.count > 1 else None,
        "--method": scoring.method,
        "--instruction": _literal(scoring.instruction),
        "--max-model-len": engine.max_model_len,
        "--dtype": dtype,
        "--gpu-memory-utilization": engine.gpu_memory_utilization,
        "--max-tokens-per-document": truncation.max_tokens_per_document,
        "--max-tokens-per-query": truncation.max_tokens_per_query,
        "--on-overflow": overflow,
    }
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    if engine.trust_remote_code:
        given.append("--trust-remote-code")
    return given + [f"--engine-arg={_literal(argument)}" for argument in engine.extra_args]


def environment(effective: Effective) -> list[Object]:
    """How replicas are verified, where it is not as usual: too long for an argument that people read."""
    verification = effective.scoring.verification
    if verification.mode == "Required" and not verification.cases:
        return []
    text = json.dumps(verification.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
    return [{"name": VERIFICATION_VARIABLE, "value": _literal(text)}]


def _literal(text: str | None) -> str | None:
    """The kubelet replaces $(NAME) in arguments and variables, and $$ by $."""
    return None if text is None else text.replace("$", "$$")
