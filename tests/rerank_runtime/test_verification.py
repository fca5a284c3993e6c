"""Judging what an engine answered, by table."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from rerank_runtime.failure import Reason
from rerank_runtime.plan import Method
from rerank_runtime.verification import CASES, Answer, Observation, judge
from tests.rerank_runtime.support import serve_plan

CROSS_ENCODER_ROUTES = frozenset({"/v1/rerank", "/classify", "/health"})
COSINE_ROUTES = frozenset({"/v1/rerank", "/v1/embeddings", "/health"})
TOKENS = tuple(range(20, 20 + len(CASES)))


def seen(*scores: tuple[float, float], **changes: Any) -> Observation:
    """A good engine's answers; scores are (irrelevant, relevant) for the first cases, the last one for the
    rest.
    """
    pairs = list(scores or [(0.1, 0.9)])
    pairs += [pairs[-1]] * (len(CASES) - len(pairs))
    answers = tuple(Answer(pair, tokens) for pair, tokens in zip(pairs, TOKENS, strict=True))
    values: dict[str, Any] = {
        "routes": CROSS_ENCODER_ROUTES,
        "context_length": 512,
        "answers": answers,
        "expected_tokens": TOKENS,
    }
    return Observation(**(values | changes))


@pytest.mark.parametrize(
    "observation",
    [seen(), seen((-11.2, 8.4)), seen((0.9, 0.91), (0.1, 0.2)), seen((-0.3, -0.1)), seen((0.0, 1e-5))],
)
def test_good_scores_pass(observation: Observation) -> None:
    result = judge(serve_plan(), observation)
    assert result.verified
    assert len(result.scores) == len(CASES)


@pytest.mark.parametrize(
    ("observation", "reason", "says"),
    [
        (seen((0.5, 0.5)), Reason.SCORES_CONSTANT, "the same score, 0.5"),
        (seen((0.9, 0.1)), Reason.SCORES_INVERTED, "5 of 5"),
        (seen((0.1, 0.9), (0.6, 0.5), (0.1, 0.9)), Reason.SCORES_INVERTED, "1 of 5"),
        (seen((0.1, 0.9), (0.5, 0.5), (0.1, 0.9)), Reason.SCORES_INVERTED, "1 of 5"),
        (seen((0.1, math.nan)), Reason.SCORES_NOT_FINITE, "no number"),
        (seen((0.1, math.inf)), Reason.SCORES_NOT_FINITE, "no number"),
        (
            seen(answers=(Answer(error="400: Out of range float values are not JSON compliant: nan"),) * 5),
            Reason.SCORES_NOT_FINITE,
            "no number",
        ),
        (seen(answers=(Answer(error="500: no"),) * 5), Reason.ENGINE_ERROR, "500: no"),
        (seen(answers=(Answer((0.3,), 20),) * 5), Reason.ENGINE_ERROR, "1 scores for 2 documents"),
        (seen(expected_tokens=(20, 21, 22, 23, 99)), Reason.PROMPT_TOKENS_DIFFER, "makes 99"),
        (seen(routes=COSINE_ROUTES), Reason.WRONG_ROUTES, "lacks /classify and has /v1/embeddings"),
        (seen(routes=frozenset({"/health", "/classify"})), Reason.WRONG_ROUTES, "lacks /v1/rerank"),
        (seen(context_length=514), Reason.ENGINE_ERROR, "514"),
    ],
)
def test_what_is_wrong_is_named(observation: Observation, reason: Reason, says: str) -> None:
    result = judge(serve_plan(), observation)
    assert result.failure is not None
    assert result.failure.reason == reason
    assert says in result.failure.message


def test_an_embedding_model_has_other_routes() -> None:
    plan = serve_plan(Method.COSINE)
    assert judge(plan, seen(routes=COSINE_ROUTES)).verified
    wrong = judge(plan, seen(routes=CROSS_ENCODER_ROUTES)).failure
    assert wrong is not None
    assert wrong.reason == Reason.WRONG_ROUTES


def test_the_result_is_json_even_where_a_score_is_no_number() -> None:
    body = judge(serve_plan(), seen((0.1, math.nan))).as_json()
    assert json.loads(json.dumps(body, allow_nan=False))["cases"][0] == {
        "query": CASES[0].query,
        "irrelevant": 0.1,
    }
    assert body["verified"] is False
    assert body["reason"] == "ScoresNotFinite"


def test_scores_are_reported_as_relevant_and_irrelevant() -> None:
    body = judge(serve_plan(), seen((0.25, 0.75))).as_json()
    assert body["cases"][0] == {"query": CASES[0].query, "relevant": 0.75, "irrelevant": 0.25}


@pytest.mark.parametrize("case", CASES)
def test_relevant_texts_alone_share_a_word_with_the_query(case: Any) -> None:
    # The hand-made model of the demo hub knows nothing else.
    from dev.hub.word_overlap import STOP_WORDS  # noqa: PLC0415

    def words(text: str) -> set[str]:
        return {w.strip("?.,()").lower() for w in text.split()} - STOP_WORDS

    assert words(case.query) & words(case.relevant)
    assert not words(case.query) & words(case.irrelevant)


def test_observations_hold_one_answer_for_each_case() -> None:
    with pytest.raises(ValueError, match="zip"):
        judge(serve_plan(), replace(seen(), answers=()))
