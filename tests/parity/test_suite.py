"""The parts of the suite that need no engine."""

import json
import math
from dataclasses import replace
from typing import Any

import jinja2
import pytest

from parity import measure, pairs, sensitivity, table, vllm_program, wrong
from parity.measure import Row
from parity.sensitivity import BOUND, Sensitivity
from parity.table import Ignored, Outcome

FAMILY: dict[str, Any] = {
    "name": "bert",
    "card": "org/model",
    "length": 512,
    "scale": "[0,1]",
    "exact": True,
    "note": "",
}
ROW = Row(
    family="bert",
    pairs=60,
    difference={"varied": 1e-6},
    tau=1.0,
    sensitivity=Sensitivity({"varied": (40, 60), "control": (4, 5), "overlong": (3, 3)}, (190, 283)),
    tokens=(8, 8),
    verified="",
    plan={"context_length": 512, "score_range": "[0,1]"},
)


def test_at_least_fifty_pairs_of_many_kinds() -> None:
    documents = [document for request in pairs.varied() for document in request.documents]
    assert len(documents) >= 50
    assert "" in documents
    assert any(document.endswith("\n") for document in documents)
    assert max(map(len, documents)) > 1000
    assert any("\u4e00" <= letter <= "\u9fff" for document in documents for letter in document)


def test_an_overlong_document_stands_between_others() -> None:
    first, long, last = pairs.overlong(512).documents
    assert len(long.split()) > 512 > len(first.split()) + len(last.split())


def test_every_token_is_in_the_control_documents() -> None:
    text = "".join(pairs.control(["<a>", "<b>", "<c>"]).documents)
    assert all(token in text for token in ("<a>", "<b>", "<c>"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["vllm", "serve", "--a=1", "--b=2"]),
        ({"--a": None}, ["vllm", "serve", "--b=2"]),
        ({"--a": "3"}, ["vllm", "serve", "--b=2", "--a=3"]),
        ({"--c": ""}, ["vllm", "serve", "--a=1", "--b=2", "--c"]),
    ],
)
def test_flags_change(changes: dict[str, str | None], expected: list[str]) -> None:
    assert vllm_program.changed(["vllm", "serve", "--a=1", "--b=2"], changes) == expected


def test_a_wrong_template_gives_its_prompt_to_the_last_newline() -> None:
    template = jinja2.Environment(autoescape=False).from_string(wrong.jinja('a "x"\n<QUERY>\nDOCUMENT é\n\n'))
    messages = [{"role": "query", "content": "Q\n"}, {"role": "document", "content": "D"}]
    assert template.render(messages=messages) == 'a "x"\n<Q\n>\nD é\n\n'


@pytest.mark.parametrize("case", wrong.CASES, ids=lambda case: f"{case.family}: {case.what}")
def test_every_wrong_configuration_is_one(case: wrong.Wrong) -> None:
    assert case.changes or case.options is not None or case.without
    assert (wrong.TEMPLATE in case.changes.values()) == bool(case.template)
    overrides = case.changes.get("--hf-overrides")
    assert overrides is None or json.loads(overrides)


def test_a_good_row_has_no_failures() -> None:
    assert table.failures(FAMILY, ROW) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"difference": {"varied": 1e-6, "control": 2e-3}}, "scores differ by 0.002"),
        ({"tau": 0.99}, "the order differs, tau 0.990"),
        ({"tau": math.nan}, "the order differs, tau nan"),
        (
            {"sensitivity": Sensitivity({"varied": (39, 60)}, (190, 283))},
            "39 of 60 varied scores of the card are sensitive",
        ),
        (
            {"sensitivity": Sensitivity({"overlong": (2, 3)}, (190, 283))},
            "2 of 3 overlong scores of the card are sensitive",
        ),
        (
            {"sensitivity": Sensitivity({}, (188, 283))},
            "188 of 283 pairs of documents have an order by the card",
        ),
        ({"tokens": (7, 8)}, "7 of 8 requests have the card's prompts"),
        ({"verified": "ScoresInverted"}, "verification failed: ScoresInverted"),
        ({"errors": ("varied: 400",)}, "varied: 400"),
        (
            {"plan": {"context_length": 514, "score_range": "[0,1]"}},
            "the plan's context_length is 514, the card's is 512",
        ),
    ],
)
def test_a_bad_row_says_why(changed: dict[str, Any], told: str) -> None:
    assert table.failures(FAMILY, replace(ROW, **changed)) == [told]


def test_a_stated_difference_is_no_failure() -> None:
    row = replace(ROW, difference={"varied": 0.3}, tau=0.9, tokens=(1, 8))
    assert table.failures(FAMILY | {"exact": False}, row) == []


def test_agreement_leaves_out_what_the_reference_does_not_tell_apart() -> None:
    agreement = measure._agreement([0.1, 0.3, 0.2], [0.1, 0.2, 0.2 + BOUND])
    assert agreement == [1, 1]
    assert measure._agreement([0.3, 0.1], [0.1, 0.2]) == [-1]


@pytest.mark.parametrize(
    ("given", "counted", "same"),
    [
        ([[1, 2], [3]], 3, True),
        ([[3], [1, 2]], 3, True),
        # The pod verified meanwhile.
        ([[9], [3], [1, 2]], 3, True),
        # As many tokens, and others.
        ([[1, 4], [3]], 3, False),
        ([[1], [2, 3]], 3, False),
        ([[1, 2]], 3, False),
        # A prompt more, of the request itself.
        ([[1, 2], [3], [3]], 4, False),
        ([], 3, False),
    ],
)
def test_prompts_are_compared_token_for_token(given: list[list[int]], counted: int, same: bool) -> None:
    assert measure.same_prompts(given, [[1, 2], [3]], counted) is same


@pytest.mark.parametrize(
    ("scale", "scores", "sensitive"),
    [
        # The sigmoid of 4.5 and less, and of 4.7 and more.
        ("[0,1]", [0.011, 0.5, 0.989, 0.009, 0.991, 1.0], 3),
        ("[-1,1]", [-0.99, 0.0, 0.99, -0.996, 0.996], 3),
        ("logits", [-20.0, 0.0, 20.0], 3),
    ],
)
def test_scores_at_the_ends_of_a_range_show_no_error(scale: str, scores: list[float], sensitive: int) -> None:
    found = sensitivity.of([{"kind": "varied", "scores": scores}], scale)
    assert found.scores == {"varied": (sensitive, len(scores))}


def test_sensitivity_counts_by_kind_and_order_within_a_request() -> None:
    requests = [
        {"kind": "varied", "scores": [0.5, 0.5, 1.0]},
        {"kind": "varied", "scores": [0.3, 0.4]},
        {"kind": "overlong", "scores": [1.0, 1.0, 1.0]},
    ]
    found = sensitivity.of(requests, "[0,1]")
    assert found == Sensitivity({"varied": (4, 5), "overlong": (0, 3)}, (3, 7))
    assert found.failures() == [
        "0 of 3 overlong scores of the card are sensitive",
        "3 of 7 pairs of documents have an order by the card",
    ]


def test_the_page_holds_every_row() -> None:
    case = wrong.CASES[0]
    outcome = Outcome(case, "NotAReranker", "the plan", None)
    text = table.page(
        [(FAMILY | {"note": "as noted"}, ROW)], [outcome], [Ignored("a_field", 0.0)], {"vllm": "0.32"}
    )
    assert (
        "| bert | org/model | 512 | [0,1] | 1.0e-06 | – | – | 47/68 | 1.000 of 190/283 | 8/8 | yes |" in text
    )
    assert f"| {case.family} | {case.what} | the plan | `NotAReranker` | – |" in text
    assert "- bert: as noted." in text
    assert "`a_field`" in text
    assert "vllm 0.32" in text
