"""Are the scores a ranking? Pure; used by verdict.

What a difference is worth depends on the scale. A sigmoid crowds most of what a model says into its two ends,
so its scores are compared as the logits that they came from; logits are compared as they are, cosines in
their own narrower range. The margins lie above what half precision and batch shapes change, and far below
what any trained model gives the built-in pairs.
"""

from __future__ import annotations

import math

from rerank_runtime import activation
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.verification.observation import Answer, Observation

# Scores this close together are the same score, on any scale.
SAME = 1e-6
MARGINS = {activation.UNIT: 0.1, activation.LOGITS: 0.1, activation.COSINE: 0.01}
_ENDS = {activation.UNIT: (0.0, 1.0), activation.COSINE: (-1.0, 1.0)}
# Where a logit is no longer told from a larger one: float32 has no number between 1 - 6e-8 and 1.
_CLOSEST = 1e-9


def saturated(plan: ServePlan, seen: Observation) -> Failure | None:
    """Both texts of a pair lie at the same end of the range, where they cannot be told apart."""
    pairs = _binding(seen)
    stuck = [
        (answer, end)
        for answer in pairs
        for end in _ENDS.get(plan.score_range, ())
        if all(abs(score - end) <= SAME for score in _scores(answer))
    ]
    if not stuck:
        return None
    answer, end = stuck[0]
    return Failure(
        Reason.SCORES_SATURATED,
        f"{len(stuck)} of {len(pairs)} known pairs get the score {end:g} twice, first “{answer.case.query}”: "
        "what the model computes lies beyond what the range can show. Its weights are damaged or were "
        "quantised too coarsely, or it runs in a precision that is too low (engine.dtype).",
    )


def constant(_plan: ServePlan, seen: Observation) -> Failure | None:
    """Every text gets the same score."""
    scores = [score for answer in _binding(seen) for score in _scores(answer)]
    if not scores or max(scores) - min(scores) > SAME:
        return None
    return Failure(
        Reason.SCORES_CONSTANT,
        f"The model gives every text the same score, {scores[0]:.6g}: "
        "its classification head is not trained or was lost.",
    )


def inverted(_plan: ServePlan, seen: Observation) -> Failure | None:
    """A text that does not answer its query scores higher than one that does."""
    pairs = _binding(seen)
    wrong = [answer for answer in pairs if _difference(answer) < -SAME]
    if not wrong:
        return None
    which = f"{len(pairs)} known pairs"
    if all(answer.case.own for answer in wrong):
        own = sum(answer.case.own for answer in pairs)
        which = f"{own} in spec.scoring.verification.cases"
    return Failure(
        Reason.SCORES_INVERTED,
        f"The model ranks {len(wrong)} of {which} in the wrong order, first {_told(wrong[0])}.",
    )


def too_close(plan: ServePlan, seen: Observation) -> Failure | None:
    """The order is right by less than chance would do. A user's own cases may be close: those must differ."""
    pairs = _binding(seen)
    close = [answer for answer in pairs if _gap(plan, answer) <= _margin(plan, answer)]
    if not close:
        return None
    return Failure(
        Reason.SCORES_TOO_CLOSE,
        f"The model hardly tells {len(close)} of {len(pairs)} known pairs apart, first {_told(close[0])}: "
        "such differences are noise.",
    )


def languages(_plan: ServePlan, seen: Observation) -> Failure | None:
    """Every pair that is not English is the wrong way round.

    Many good models know one language, and score others at random: a language that is ranked wrongly is
    reported, and not held against the model. All of them ranked wrongly is less than a chance of one in a
    hundred, even for a model that knows none: then something turns its scores round.
    """
    others = [answer for answer in seen.answers if answer.case.language not in ("", "en")]
    if len(others) < 2 or any(_difference(answer) >= -SAME for answer in others):
        return None
    return Failure(
        Reason.SCORES_INVERTED,
        f"The model ranks the known pairs of all {len(others)} languages besides English in the wrong order, "
        f"first {_told(others[0])}.",
    )


def _binding(seen: Observation) -> list[Answer]:
    """Those that must hold: English ones and a user's own."""
    return [answer for answer in seen.answers if answer.case.language in ("", "en")]


def _scores(answer: Answer) -> tuple[float, float]:
    if answer.relevant is None or answer.irrelevant is None:
        raise AssertionError("answers without scores were refused before")
    return answer.relevant, answer.irrelevant


def _difference(answer: Answer) -> float:
    relevant, irrelevant = _scores(answer)
    return relevant - irrelevant


def _gap(plan: ServePlan, answer: Answer) -> float:
    relevant, irrelevant = _scores(answer)
    if plan.score_range == activation.UNIT and not answer.case.own:
        return _logit(relevant) - _logit(irrelevant)
    return relevant - irrelevant


def _margin(plan: ServePlan, answer: Answer) -> float:
    return SAME if answer.case.own else MARGINS[plan.score_range]


def _logit(score: float) -> float:
    inside = min(max(score, _CLOSEST), 1 - _CLOSEST)
    return math.log(inside / (1 - inside))


def _told(answer: Answer) -> str:
    relevant, irrelevant = _scores(answer)
    return (
        f"“{answer.case.query}” ({relevant:.4g} for “{answer.case.relevant}”, "
        f"{irrelevant:.4g} for “{answer.case.irrelevant}”)"
    )
