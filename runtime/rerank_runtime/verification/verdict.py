"""Does the running engine score right? Judged from what it answered, without asking anything here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_runtime.failure import Failure
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.verification import checks, ranking
from rerank_runtime.verification.observation import Answer, Observation
from rerank_runtime.verification.settings import Mode

# In this order: a later check assumes that the earlier ones passed.
_CHECKS: tuple[Callable[[ServePlan, Observation], Failure | None], ...] = (
    checks.template,
    checks.routes,
    checks.length,
    checks.errors,
    ranking.saturated,
    ranking.constant,
    checks.instruction,
    checks.tokens,
    ranking.inverted,
    ranking.too_close,
    ranking.languages,
)
# The operator reads no more cases, and no longer texts.
_MOST_CASES = 64
_LONGEST_QUERY = 200


@dataclass(frozen=True)
class Result:
    """What verification found.

    Args:
        failure: The first check that failed, or None.
        answers: What the engine said.
        mode: What follows from it.
        checked_at: When, as RFC 3339 in UTC; empty where nothing was checked.
        checked: False where the mode is Off.
    """

    failure: Failure | None = None
    answers: tuple[Answer, ...] = ()
    mode: Mode = Mode.REQUIRED
    checked_at: str = ""

    @property
    def verified(self) -> bool:
        """Whether every check passed; without any it is not."""
        return self.failure is None and self.mode is not Mode.OFF

    def as_json(self) -> dict[str, Any]:
        """For /status."""
        return {
            "verified": self.verified,
            "mode": str(self.mode),
            "reason": str(self.failure.reason) if self.failure else "",
            "message": self.failure.message if self.failure else "",
            "checkedAt": self.checked_at,
            "cases": [_case(answer) for answer in self.answers[:_MOST_CASES]],
        }

    def with_earlier(self, earlier: Sequence[Answer]) -> tuple[Answer, ...]:
        """The answers of a full round, brought up to date by this one's."""
        fresh = {answer.case: answer for answer in self.answers}
        known = {answer.case for answer in earlier}
        kept = tuple(fresh.get(answer.case, answer) for answer in earlier)
        return (*kept, *(answer for answer in self.answers if answer.case not in known))


def judge(plan: ServePlan, seen: Observation, *, mode: Mode = Mode.REQUIRED, checked_at: str = "") -> Result:
    """Apply the checks in order; the first that fails is the reason."""
    for check in _CHECKS:
        failure = check(plan, seen)
        if failure:
            return Result(failure, seen.answers, mode, checked_at)
    return Result(None, seen.answers, mode, checked_at)


def _case(answer: Answer) -> dict[str, Any]:
    case = answer.case
    query = case.query if len(case.query) <= _LONGEST_QUERY else case.query[:_LONGEST_QUERY] + "…"
    told: dict[str, Any] = {"query": query}
    if case.language:
        told["language"] = case.language
    scores = (("relevant", answer.relevant), ("irrelevant", answer.irrelevant))
    # JSON has no NaN: a score that is none is left out.
    return told | {name: score for name, score in scores if score is not None and math.isfinite(score)}
