"""Prompt tokens that the built-in cases must have, with and without the plan's instruction. Used by serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rerank_runtime import chat_template, prompt_tokens
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.verification.cases import BUILT_IN, Case
from rerank_runtime.verification.observation import Expected


def of_built_in_cases(directory: Path, plan: ServePlan) -> dict[Case, Expected]:
    """What the engine must count for each built-in case. A user's cases are not counted: their texts may hold
    control tokens or be longer than the limits, which the intake changes.

    Raises:
        Failure: `TokenizerInvalid` where tokenizer.json cannot be used.
    """
    try:
        tokens = prompt_tokens.expected(directory, plan, BUILT_IN)
        bare = without_instruction(plan)
        fewer = prompt_tokens.expected(directory, bare, BUILT_IN) if bare else [None] * len(BUILT_IN)
    except Failure:
        raise
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise Failure(
            Reason.TOKENIZER_INVALID,
            f"The model's tokenizer.json cannot be used: {error}. Save the tokenizer again in its fast form, "
            "with the library's present version.",
        ) from error
    return {case: Expected(count, rest) for case, count, rest in zip(BUILT_IN, tokens, fewer, strict=True)}


def without_instruction(plan: ServePlan) -> ServePlan | None:
    """The plan with an empty instruction in its template; None where it has none."""
    if plan.template is None or not plan.instruction:
        return None
    quoted = chat_template.quote(plan.instruction)
    return replace(plan, template=plan.template.replace(quoted, '""', 1))
