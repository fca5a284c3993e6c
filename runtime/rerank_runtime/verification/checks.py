"""Is the model served as the plan says? Everything but the order of the scores. Pure; used by verdict.

The checks follow what catches wrong configurations that still answer 200 with plausible scores: the set of
routes, the template's hash and the number of prompt tokens. Ranges prove nothing.
"""

from __future__ import annotations

import math

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import Method
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.verification.cases import Case
from rerank_runtime.verification.observation import Answer, Observation

_RERANK = "/v1/rerank"
_CLASSIFY = "/classify"
_EMBEDDINGS = "/v1/embeddings"


def template(plan: ServePlan, seen: Observation) -> Failure | None:
    """The file that the engine was handed is the plan's template, to the last newline, which the number of
    tokens does not always tell.
    """
    if seen.template_sha256 == plan.template_sha256:
        return None
    found = seen.template_sha256 or "missing"
    return Failure(
        Reason.TEMPLATE_DIFFERS,
        f"The chat template of the engine has SHA-256 {found[:12]} where the plan's has "
        f"{(plan.template_sha256 or 'none')[:12]}: something changed the file in the container.",
        retriable=True,
    )


def routes(plan: ServePlan, seen: Observation) -> Failure | None:
    """The routes tell what vLLM took the model for.

    Version 0.32 (entrypoints/pooling/factories.py) has /classify for cross-encoders and /v1/embeddings for
    embedding models; a listwise model (model_executor/models/jina.py: token_embed alone) has neither.
    """
    if seen.surroundings is None:
        return None
    wanted = {_RERANK}
    if plan.pointwise:
        wanted.add(_CLASSIFY if plan.method is Method.CROSS_ENCODER else _EMBEDDINGS)
    unwanted = {_CLASSIFY, _EMBEDDINGS} - wanted
    absent = sorted(wanted - seen.surroundings.routes)
    extra = sorted(unwanted & seen.surroundings.routes)
    if not absent and not extra:
        return None
    what = [f"lacks {', '.join(absent)}"] if absent else []
    what += [f"has {', '.join(extra)}"] if extra else []
    kind = plan.method if plan.pointwise else f"listwise {plan.method}"
    return Failure(
        Reason.WRONG_ROUTES,
        f"The engine {' and '.join(what)}: it does not serve the model as {kind}.",
    )


def length(plan: ServePlan, seen: Observation) -> Failure | None:
    """The engine takes texts as long as the plan says."""
    if seen.surroundings is None or seen.surroundings.context_length == plan.context_length:
        return None
    return Failure(
        Reason.ENGINE_ERROR,
        f"The engine takes {seen.surroundings.context_length} tokens where the plan says "
        f"{plan.context_length}.",
    )


def errors(_plan: ServePlan, seen: Observation) -> Failure | None:
    """Every case was answered, with numbers."""
    for answer in seen.answers:
        # vLLM's JSON encoder refuses NaN and infinity, with status 400 as if the caller were to blame.
        if "Out of range float values" in answer.error:
            return _not_finite(answer.case)
        if answer.error or answer.relevant is None or answer.irrelevant is None:
            what = answer.error or "not two scores"
            return Failure(
                Reason.ENGINE_ERROR,
                f"The engine answered the query “{answer.case.query}” with {what}.",
                retriable=True,
            )
        if not (math.isfinite(answer.relevant) and math.isfinite(answer.irrelevant)):
            return _not_finite(answer.case)
    return None


def _not_finite(case: Case) -> Failure:
    return Failure(
        Reason.SCORES_NOT_FINITE,
        f"The model's score is no number (NaN or infinite) for the query “{case.query}”: its weights are "
        "damaged, or too large for the precision that it runs in (engine.dtype).",
    )


def instruction(plan: ServePlan, seen: Observation) -> Failure | None:
    """The instruction is in the prompt: without it the prompts would have another number of tokens."""
    for answer in _counted(seen):
        expected = answer.expected
        if (
            expected
            and answer.prompt_tokens == expected.without_instruction
            and answer.prompt_tokens != expected.tokens
        ):
            return Failure(
                Reason.INSTRUCTION_IGNORED,
                f"The engine's prompts lack the instruction “{plan.instruction}”: it made "
                f"{answer.prompt_tokens} tokens of the query “{answer.case.query}” and its documents where "
                f"{expected.tokens} are expected.",
            )
    return None


def tokens(_plan: ServePlan, seen: Observation) -> Failure | None:
    """Each prompt has as many tokens as our template and the model's own tokenizer give."""
    for answer in _counted(seen):
        if answer.expected and answer.prompt_tokens != answer.expected.tokens:
            return Failure(
                Reason.PROMPT_TOKENS_DIFFER,
                f"The engine made {answer.prompt_tokens} prompt tokens of the query “{answer.case.query}” "
                f"and its documents; the model's template and tokenizer make {answer.expected.tokens}.",
            )
    return None


def _counted(seen: Observation) -> list[Answer]:
    return [answer for answer in seen.answers if not answer.truncated]
