"""Judging what an engine answered, by table."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import Method
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.verification import Settings, cases
from rerank_runtime.verification.cases import BUILT_IN, ENGLISH, OTHER_LANGUAGES, Case
from rerank_runtime.verification.observation import Answer, Expected, Observation, Surroundings
from rerank_runtime.verification.settings import Mode
from rerank_runtime.verification.verdict import Result, judge
from tests.rerank_runtime.support import serve_plan

CROSS_ENCODER = frozenset({"/v1/rerank", "/classify", "/health"})
COSINE = frozenset({"/v1/rerank", "/v1/embeddings", "/health"})
LISTWISE = frozenset({"/v1/rerank", "/pooling", "/health"})
OWN = Case("our returns policy", "Send it back within 30 days.", "We ship on weekdays.")
TEMPLATE = "{{ messages[0].content }} {{ messages[1].content }}"


def answer(case: Case, relevant: float = 0.9, irrelevant: float = 0.1, **changes: Any) -> Answer:
    values: dict[str, Any] = {"prompt_tokens": 20, "expected": Expected(20)}
    return Answer(case, relevant, irrelevant, **(values | changes))


def seen(
    *english: tuple[float, float],
    others: tuple[float, float] = (0.9, 0.1),
    routes: frozenset[str] = CROSS_ENCODER,
    length: int = 512,
    own: tuple[float, float] | None = None,
    template: str | None = None,
    **changes: Any,
) -> Observation:
    """A good engine's answers; scores are (relevant, irrelevant) for the first English cases, the last one
    for the rest.
    """
    pairs = list(english or [(0.9, 0.1)])
    pairs += [pairs[-1]] * (len(ENGLISH) - len(pairs))
    answers = [answer(OWN, *own, expected=None)] if own else []
    answers += [answer(case, *pair, **changes) for case, pair in zip(ENGLISH, pairs, strict=True)]
    answers += [answer(case, *others, **changes) for case in OTHER_LANGUAGES]
    return Observation(tuple(answers), template, Surroundings(routes, length))


def failed(error: str) -> Observation:
    """The engine answered with an error, or with no scores."""
    good = seen()
    return replace(good, answers=tuple(Answer(each.case, error=error) for each in good.answers))


def reason(result: Result) -> Reason | None:
    return result.failure.reason if result.failure else None


@pytest.mark.parametrize(
    ("plan", "observation"),
    [
        (serve_plan(), seen()),
        (serve_plan(), seen((0.91, 0.9), (0.2, 0.1))),
        # Far down in a sigmoid's tail, and yet far apart.
        (serve_plan(), seen((3e-4, 3e-7))),
        (serve_plan(), seen((1e-5, 0.0))),
        # A very sure model: both ends, but not one end twice.
        (serve_plan(), seen((1.0, 0.0))),
        (serve_plan(score_range="logits"), seen((8.4, -11.2))),
        (serve_plan(Method.COSINE, score_range="[-1,1]"), seen((-0.1, -0.3), routes=COSINE)),
        (serve_plan(pointwise=False, score_range="[-1,1]"), seen(routes=LISTWISE)),
        # A model of one language ranks the others somehow, and most of them wrongly.
        (
            serve_plan(),
            replace(seen(), answers=(*seen().answers[:-6], *seen(others=(0.1, 0.2)).answers[-6:])),
        ),
        # A user's own pair may be a close one.
        (serve_plan(), seen(own=(0.501, 0.5))),
        # Cut texts have other tokens.
        (serve_plan(), seen(prompt_tokens=7, truncated=True)),
    ],
)
def test_good_scores_pass(plan: ServePlan, observation: Observation) -> None:
    result = judge(plan, observation)
    assert result.failure is None
    assert result.verified


@pytest.mark.parametrize(
    ("observation", "wrong", "says"),
    [
        (seen((0.5, 0.5)), Reason.SCORES_CONSTANT, "the same score, 0.5"),
        (seen((0.1, 0.9)), Reason.SCORES_INVERTED, "5 of 5"),
        (seen((0.9, 0.1), (0.5, 0.6), (0.9, 0.1)), Reason.SCORES_INVERTED, "1 of 5"),
        (seen(own=(0.4, 0.6)), Reason.SCORES_INVERTED, "1 of 1 in spec.scoring.verification.cases"),
        (seen(others=(0.1, 0.9)), Reason.SCORES_INVERTED, "all 7 languages besides English"),
        (seen((0.9, 0.1), (0.5, 0.5), (0.9, 0.1)), Reason.SCORES_TOO_CLOSE, "1 of 5"),
        (seen((0.503, 0.5)), Reason.SCORES_TOO_CLOSE, "5 of 5"),
        (seen(own=(0.5, 0.5)), Reason.SCORES_TOO_CLOSE, OWN.query),
        (seen((1.0, 1.0)), Reason.SCORES_SATURATED, "5 of 5"),
        (seen((0.0, 0.0)), Reason.SCORES_SATURATED, "the score 0 twice"),
        (seen((0.9, 0.1), (1.0, 0.9999999), (0.9, 0.1)), Reason.SCORES_SATURATED, "1 of 5"),
        (seen((math.nan, 0.1)), Reason.SCORES_NOT_FINITE, "no number"),
        (seen((math.inf, 0.1)), Reason.SCORES_NOT_FINITE, "no number"),
        (
            failed("400: Out of range float values are not JSON compliant: nan"),
            Reason.SCORES_NOT_FINITE,
            "no number",
        ),
        (failed("500: no"), Reason.ENGINE_ERROR, "500: no"),
        (failed(""), Reason.ENGINE_ERROR, "not two scores"),
        (seen(prompt_tokens=21), Reason.PROMPT_TOKENS_DIFFER, "template and tokenizer make 20"),
        (
            seen(prompt_tokens=12, expected=Expected(20, 12)),
            Reason.INSTRUCTION_IGNORED,
            "lack the instruction",
        ),
        (seen(prompt_tokens=13, expected=Expected(20, 12)), Reason.PROMPT_TOKENS_DIFFER, "make 20"),
        (seen(routes=COSINE), Reason.WRONG_ROUTES, "lacks /classify and has /v1/embeddings"),
        (seen(routes=frozenset({"/health", "/classify"})), Reason.WRONG_ROUTES, "lacks /v1/rerank"),
        (seen(routes=LISTWISE), Reason.WRONG_ROUTES, "lacks /classify"),
        (seen(length=514), Reason.ENGINE_ERROR, "514"),
        (seen(template="0" * 64), Reason.TEMPLATE_DIFFERS, "the plan's has none"),
    ],
)
def test_what_is_wrong_is_named(observation: Observation, wrong: Reason, says: str) -> None:
    result = judge(serve_plan(), observation)
    assert not result.verified
    assert reason(result) == wrong
    assert result.failure is not None
    assert says in result.failure.message


def test_logits_and_cosines_have_margins_of_their_own() -> None:
    logits, cosine = serve_plan(score_range="logits"), serve_plan(Method.COSINE, score_range="[-1,1]")
    assert reason(judge(logits, seen((0.05, 0.0)))) == Reason.SCORES_TOO_CLOSE
    assert judge(logits, seen((1.0, 0.0))).verified
    assert judge(cosine, seen((0.05, 0.0), routes=COSINE)).verified
    assert reason(judge(cosine, seen((0.005, 0.0), routes=COSINE))) == Reason.SCORES_TOO_CLOSE
    assert reason(judge(cosine, seen((1.0, 1.0), routes=COSINE))) == Reason.SCORES_SATURATED


def test_each_method_has_routes_of_its_own() -> None:
    cosine, listwise = serve_plan(Method.COSINE), serve_plan(pointwise=False)
    assert reason(judge(cosine, seen())) == Reason.WRONG_ROUTES
    assert reason(judge(cosine, seen(routes=COSINE))) is None
    assert reason(judge(listwise, seen())) == Reason.WRONG_ROUTES
    assert reason(judge(listwise, seen(routes=COSINE))) == Reason.WRONG_ROUTES


def test_a_newline_that_is_lost_from_the_template_is_seen() -> None:
    plan = serve_plan(template=TEMPLATE + "\n")
    assert judge(plan, seen(template=plan.template_sha256)).verified
    lost = serve_plan(template=TEMPLATE).template_sha256
    assert reason(judge(plan, seen(template=lost))) == Reason.TEMPLATE_DIFFERS
    assert reason(judge(plan, seen(template=""))) == Reason.TEMPLATE_DIFFERS


def test_a_quick_round_has_no_surroundings_and_few_cases() -> None:
    asked = cases.quick((OWN,), 3)
    assert asked[0] == OWN
    assert [case.language for case in asked[1:]][:2] == ["en", "en"]
    observation = Observation(tuple(answer(case) for case in asked), None)
    assert judge(serve_plan(), observation).verified
    one_language = tuple(
        answer(case, 0.1, 0.9) if not case.own and case.language != "en" else answer(case) for case in asked
    )
    assert judge(serve_plan(), Observation(one_language, None)).verified


def test_quick_rounds_come_to_every_case() -> None:
    rounds = [cases.quick((), number) for number in range(len(ENGLISH) * len(OTHER_LANGUAGES))]
    assert {case for each in rounds for case in each} == set(BUILT_IN)


def test_the_result_is_json_even_where_a_score_is_no_number() -> None:
    body = judge(serve_plan(), seen((math.nan, 0.1)), checked_at="2026-11-22T20:00:00Z").as_json()
    assert json.loads(json.dumps(body, allow_nan=False))["cases"][0] == {
        "query": ENGLISH[0].query,
        "language": "en",
        "irrelevant": 0.1,
    }
    assert (body["verified"], body["mode"], body["reason"]) == (False, "Required", "ScoresNotFinite")
    assert body["checkedAt"] == "2026-11-22T20:00:00Z"


def test_scores_are_reported_as_relevant_and_irrelevant() -> None:
    body = judge(serve_plan(), seen(own=(0.75, 0.25))).as_json()
    assert body["cases"][0] == {"query": OWN.query, "relevant": 0.75, "irrelevant": 0.25}
    assert len(body["cases"]) == 1 + len(BUILT_IN)


def test_a_quick_round_brings_some_scores_up_to_date() -> None:
    full = judge(serve_plan(), seen()).answers
    later = Result(answers=(answer(ENGLISH[1], 0.6, 0.2), answer(OWN))).with_earlier(full)
    assert later[1].relevant == 0.6
    assert later[:1] == full[:1]
    assert later[-1].case == OWN
    assert len(later) == len(full) + 1


def test_nothing_checked_is_not_verified() -> None:
    body = Result(mode=Mode.OFF).as_json()
    assert (body["verified"], body["reason"], body["cases"]) == (False, "", [])


@pytest.mark.parametrize("case", BUILT_IN)
def test_relevant_texts_alone_share_a_word_with_the_query(case: Case) -> None:
    # The hand-made model of the demo hub knows nothing else.
    from dev.hub.word_overlap import STOP_WORDS  # noqa: PLC0415

    if case.language in ("zh", "ja"):

        def words(text: str) -> set[str]:
            return set(text) - set("はをかに的了?。、,")
    else:

        def words(text: str) -> set[str]:
            return (
                {w.strip("?.,()¿؟।«»").lower() for w in text.split()} - STOP_WORDS - {"el", "la", "de", "है"}
            )

    assert words(case.query) & words(case.relevant)
    assert not words(case.query) & words(case.irrelevant)


@pytest.mark.parametrize(
    ("text", "mode", "own"),
    [
        ("", Mode.REQUIRED, 0),
        ("{}", Mode.REQUIRED, 0),
        ('{"mode": "Report"}', Mode.REPORT, 0),
        ('{"mode": "Off", "cases": null}', Mode.OFF, 0),
        ('{"cases": [{"query": "q", "relevant": "r", "irrelevant": "i"}]}', Mode.REQUIRED, 1),
    ],
)
def test_settings_are_read(text: str, mode: Mode, own: int) -> None:
    found = Settings.from_json(text)
    assert (found.mode, len(found.cases)) == (mode, own)
    assert all(case.own for case in found.cases)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '{"mode": "Sometimes"}',
        '{"cases": [{"query": "q"}]}',
        '{"cases": [{"query": 1, "relevant": "r", "irrelevant": "i"}]}',
        '{"cases": ["q"]}',
    ],
)
def test_settings_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Failure) as refusal:
        Settings.from_json(text)
    assert refusal.value.reason == Reason.INVALID_OPTIONS
