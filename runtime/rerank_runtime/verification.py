"""Does the running engine score right? Judged from what it answered, without asking anything here.

The checks follow what catches wrong configurations that still answer 200 with plausible scores: the set of
routes, the number of prompt tokens, and the order of known pairs. Ranges prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.plan import Method, ServePlan


@dataclass(frozen=True)
class Case:
    """A pair of texts whose order any reranker knows."""

    query: str
    relevant: str
    irrelevant: str


# Plain facts, one of them clearly off the topic: easy for the smallest trained model, in English, which every
# model that is served here has seen. The relevant text shares a content word with the query, the other shares
# none.
CASES = (
    Case(
        "What is a panda?",
        "The giant panda is a bear species that lives in the mountains of China.",
        "Our invoice for March was paid by bank transfer.",
    ),
    Case(
        "capital of France",
        "Paris is the capital and largest city of France.",
        "Knead the dough for ten minutes and let it rest.",
    ),
    Case(
        "How do vaccines protect against disease?",
        "Vaccines train the immune system to recognise a disease before it spreads.",
        "The train to the airport leaves every fifteen minutes.",
    ),
    Case(
        "python list sort",
        "In Python, sort() orders a list in place and sorted() returns a new list.",
        "Whales are mammals and breathe air.",
    ),
    Case(
        "Who wrote Romeo and Juliet?",
        "Romeo and Juliet is a tragedy that William Shakespeare wrote about 1595.",
        "Store the batteries in a cool and dry place.",
    ),
)

# Scores this close together are the same score: far below what any reranker gives the pairs above, above what
# different batch shapes change in half precision.
SAME = 1e-6

_RERANK = "/v1/rerank"
_CLASSIFY = "/classify"
_EMBEDDINGS = "/v1/embeddings"


@dataclass(frozen=True)
class Answer:
    """What the engine answered to one case, documents in the order (irrelevant, relevant).

    Args:
        scores: Relevance scores in that order; empty where there was an error.
        prompt_tokens: As the engine counted them.
        error: HTTP status and message where the answer was no list of scores.
    """

    scores: tuple[float, ...] = ()
    prompt_tokens: int = 0
    error: str = ""


@dataclass(frozen=True)
class Observation:
    """What was seen of a running engine. `answers` has one entry for each of CASES."""

    routes: frozenset[str]
    context_length: int
    answers: tuple[Answer, ...]
    expected_tokens: tuple[int, ...]
    """Prompt tokens of each case, computed from the model's own tokenizer."""


@dataclass(frozen=True)
class Result:
    """What verification found."""

    failure: Failure | None = None
    scores: tuple[tuple[Case, float, float], ...] = field(default=())
    """(case, score of the relevant text, score of the irrelevant one), as far as there are scores."""

    @property
    def verified(self) -> bool:
        return self.failure is None

    def as_json(self) -> dict[str, Any]:
        return {
            "verified": self.verified,
            "reason": str(self.failure.reason) if self.failure else "",
            "message": self.failure.message if self.failure else "",
            "cases": [
                # JSON has no NaN: a score that is none is left out.
                {"query": case.query}
                | {k: v for k, v in (("relevant", relevant), ("irrelevant", irrelevant)) if math.isfinite(v)}
                for case, relevant, irrelevant in self.scores
            ],
        }


def judge(plan: ServePlan, seen: Observation) -> Result:
    """Apply the checks in order; the first that fails is the reason."""
    scores = tuple(
        (case, answer.scores[1], answer.scores[0])
        for case, answer in zip(CASES, seen.answers, strict=True)
        if len(answer.scores) == 2
    )
    for check in _CHECKS:
        failure = check(plan, seen)
        if failure:
            return Result(failure, scores)
    return Result(None, scores)


def _routes(plan: ServePlan, seen: Observation) -> Failure | None:
    wanted, unwanted = (
        ({_RERANK, _CLASSIFY}, {_EMBEDDINGS})
        if plan.method is Method.CROSS_ENCODER
        else ({_RERANK, _EMBEDDINGS}, {_CLASSIFY})
    )
    absent, extra = sorted(wanted - seen.routes), sorted(unwanted & seen.routes)
    if not absent and not extra:
        return None
    what = [f"lacks {', '.join(absent)}"] if absent else []
    what += [f"has {', '.join(extra)}"] if extra else []
    return Failure(
        Reason.WRONG_ROUTES,
        f"The engine {' and '.join(what)}: it does not serve the model as {plan.method}.",
    )


def _length(plan: ServePlan, seen: Observation) -> Failure | None:
    if seen.context_length == plan.context_length:
        return None
    return Failure(
        Reason.ENGINE_ERROR,
        f"The engine takes {seen.context_length} tokens where the model allows {plan.context_length}.",
    )


def _errors(_plan: ServePlan, seen: Observation) -> Failure | None:
    for case, answer in zip(CASES, seen.answers, strict=True):
        # vLLM's JSON encoder refuses NaN and infinity, with status 400 as if the caller were to blame.
        if "Out of range float values" in answer.error:
            return _not_finite(case)
        if answer.error or len(answer.scores) != 2:
            what = answer.error or f"{len(answer.scores)} scores for 2 documents"
            return Failure(Reason.ENGINE_ERROR, f"The engine answered the query “{case.query}” with {what}.")
    return None


def _finite(_plan: ServePlan, seen: Observation) -> Failure | None:
    for case, answer in zip(CASES, seen.answers, strict=True):
        if not all(math.isfinite(score) for score in answer.scores):
            return _not_finite(case)
    return None


def _not_finite(case: Case) -> Failure:
    return Failure(
        Reason.SCORES_NOT_FINITE,
        f"The model's score is no number (NaN or infinite) for the query “{case.query}”: "
        "its weights are damaged, or too large for the precision that it runs in.",
    )


def _tokens(_plan: ServePlan, seen: Observation) -> Failure | None:
    for case, answer, expected in zip(CASES, seen.answers, seen.expected_tokens, strict=True):
        if answer.prompt_tokens != expected:
            return Failure(
                Reason.PROMPT_TOKENS_DIFFER,
                f"The engine made {answer.prompt_tokens} prompt tokens of the query “{case.query}” "
                f"and its documents; the model's tokenizer makes {expected}.",
            )
    return None


def _distinct(_plan: ServePlan, seen: Observation) -> Failure | None:
    scores = [score for answer in seen.answers for score in answer.scores]
    if max(scores) - min(scores) > SAME:
        return None
    return Failure(
        Reason.SCORES_CONSTANT,
        f"The model gives every text the same score, {scores[0]:.6g}: "
        "its classification head is not trained or was lost.",
    )


def _order(_plan: ServePlan, seen: Observation) -> Failure | None:
    wrong = [
        f"“{case.query}” ({answer.scores[1]:.4g} for “{case.relevant}”, "
        f"{answer.scores[0]:.4g} for “{case.irrelevant}”)"
        for case, answer in zip(CASES, seen.answers, strict=True)
        if answer.scores[1] - answer.scores[0] <= SAME
    ]
    if not wrong:
        return None
    return Failure(
        Reason.SCORES_INVERTED,
        f"The model ranks {len(wrong)} of {len(CASES)} known pairs in the wrong order, first {wrong[0]}.",
    )


# In this order: a later check assumes that the earlier ones passed.
_CHECKS: tuple[Callable[[ServePlan, Observation], Failure | None], ...] = (
    _routes,
    _length,
    _errors,
    _finite,
    _distinct,
    _tokens,
    _order,
)
