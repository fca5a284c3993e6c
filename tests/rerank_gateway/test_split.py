"""Split and merged equals unsplit, for any request and any partition; and how many tokens a text is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_gateway import rerank_answer, split
from rerank_gateway.backend import BackendAnswer
from rerank_gateway.errors import ApiError
from rerank_gateway.estimate import Estimator
from rerank_gateway.part_size import STEP_DOCUMENTS, Most
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.rerank_request import RerankRequest, backend_body
from rerank_gateway.split import Part
from tests.rerank_gateway.fake_engine import FakeEngine, Seen

texts = st.text(alphabet="ab ", max_size=12)
requests = st.builds(
    RerankRequest,
    query=st.sampled_from(["a", "a b", "ab ba a"]),
    documents=st.lists(texts, min_size=1, max_size=40),
    top_n=st.none() | st.integers(1, 50),
    max_tokens_per_doc=st.none() | st.integers(1, 3),
)


def asked(engine: FakeEngine, request: RerankRequest) -> Ranking:
    """What an engine answers, without the socket between."""
    body = json.loads(backend_body(request, engine.served_name))
    status, headers, content = engine.respond(Seen("/v1/rerank", [], body, 0), "answer")
    assert status == 200
    told = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in headers.decode().splitlines())
    }
    return rerank_answer.parse(
        BackendAnswer(
            status,
            content,
            told.get("x-rerank-truncated", "").encode(),
            told.get("x-rerank-query-tokens", "").encode(),
        ),
        request,
    )


@settings(max_examples=300, deadline=None)
@given(requests, st.integers(1, 60), st.booleans())
def test_split_and_merged_equals_unsplit(request: RerankRequest, most: int, query_once: bool) -> None:
    engine = FakeEngine(max_model_len=8, query_once=query_once)
    costs = Estimator().pairs(request.query, request.documents)
    parts = split.parts(request, costs, split.places(request.documents), Most(most))
    merged = split.merge(request, [(part, asked(engine, part.request)) for part in parts])
    whole = asked(engine, request)
    assert merged.scores == whole.scores
    assert merged.truncated == whole.truncated
    if len(set(request.documents)) == len(request.documents):
        assert merged.tokens == whole.tokens
    else:
        assert merged.tokens <= whole.tokens


@settings(max_examples=100, deadline=None)
@given(st.data(), requests)
def test_any_partition_in_any_order_is_merged_right(data: st.DataObject, request: RerankRequest) -> None:
    engine = FakeEngine(max_model_len=8)
    where = list(split.places(request.documents).items())
    parts: list[tuple[list[str], list[tuple[int, ...]]]] = []
    for text, places in where:
        if not parts or data.draw(st.booleans()):
            parts.append(([], []))
        parts[-1][0].append(text)
        parts[-1][1].append(places)
    answers = [
        (part, asked(engine, part.request))
        for part in (
            Part(RerankRequest(request.query, documents, None, request.max_tokens_per_doc), 1, places)
            for documents, places in data.draw(st.permutations(parts))
        )
    ]
    whole = asked(engine, request)
    merged = split.merge(request, answers)
    assert (merged.scores, merged.truncated) == (whole.scores, whole.truncated)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=200), st.integers(1, 400))
def test_parts_hold_each_text_once_and_are_as_large_as_told(documents: list[str], most: int) -> None:
    request = RerankRequest("q", documents, 3, 7)
    costs = Estimator().pairs("q", documents)
    parts = split.parts(request, costs, split.places(documents), Most(most))
    for part in parts:
        assert 1 <= part.documents <= STEP_DOCUMENTS
        assert part.tokens <= most or part.documents == 1
        assert (part.request.query, part.request.top_n, part.request.max_tokens_per_doc) == ("q", None, 7)
        for text, places in zip(part.request.documents, part.places, strict=True):
            assert {documents[place] for place in places} == {text}
    held = sorted(place for part in parts for places in part.places for place in places)
    assert held == list(range(len(documents)))


def test_parts_are_about_equally_long() -> None:
    documents = [str(number) for number in range(33)]
    parts = split.parts(
        RerankRequest("q", documents, None, None), [1] * 33, split.places(documents), Most(8192)
    )
    assert [part.documents for part in parts] == [17, 16]


@pytest.mark.parametrize(
    ("documents", "tokens", "whole"),
    [
        (["a"], 10**6, True),
        (["a", "b"], 100, True),
        (["a", "b"], 101, False),
        (["a", "a"], 2, False),
        ([str(number) for number in range(32)], 32, True),
        ([str(number) for number in range(33)], 33, False),
    ],
)
def test_what_goes_whole(documents: list[str], tokens: int, whole: bool) -> None:
    assert split.is_whole(documents, tokens, Most(100)) is whole


def test_a_refusal_names_the_document_as_the_client_does() -> None:
    part = Part(RerankRequest("q", ["c", "d"], None, None), 1, [(3, 7), (5,)])
    refusal = ApiError(400, "documents[0] is long", kind="k", code="c", param="documents[0]")
    found = split.original(refusal, part)
    assert (found.status, found.code, found.param) == (400, "c", "documents[3]")
    assert found.message == "documents[3] is long"
    for param in ("query", "documents", "documents[2]", None):
        same = ApiError(400, "x", kind="k", code="c", param=param)
        assert split.original(same, part) is same


# Estimates


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("The giant panda is a bear species. " * 20, 0.2, 0.45),  # a token is about 4 characters
        ("大熊猫是一种熊科动物。" * 20, 0.6, 1.5),  # and here about one
        ("الباندا العملاقة نوع من الدببة " * 20, 0.3, 1.0),
        ("🐼" * 50, 0.9, 2.5),
    ],
)
def test_the_first_guess_is_near_in_any_script(text: str, least: float, most: float) -> None:
    [tokens] = Estimator().pairs("", [text])
    assert least * len(text) < tokens < most * len(text) + 16


def test_the_query_counts_with_each_document() -> None:
    alone = sum(Estimator().pairs("", ["d"] * 10))
    assert sum(Estimator().pairs("query " * 100, ["d"] * 10)) == pytest.approx(alone + 10 * 200, abs=20)


def test_a_text_longer_than_the_model_is_cut() -> None:
    estimator = Estimator()
    estimator.longest = 512
    assert estimator.pairs("q", ["word " * 10_000, "d"]) == [512, Estimator().pairs("q", ["d"])[0]]


def test_usage_teaches() -> None:
    estimator = Estimator()
    text = "x" * 3000
    for _ in range(100):
        estimator.learn(sum(estimator.pairs("q", [text])), 500, estimator.ratio)
    assert sum(estimator.pairs("q", [text])) == pytest.approx(500, rel=0.05)


def test_answers_that_come_long_after_their_estimate_teach_no_more_than_they_know() -> None:
    estimator = Estimator()
    estimated = sum(estimator.pairs("q", ["x" * 3000]))
    for _ in range(500):
        estimator.learn(estimated, 500, 1.0)
    assert sum(estimator.pairs("q", ["x" * 3000])) == pytest.approx(500, rel=0.05)


@pytest.mark.parametrize("read", [0, -5, 1, 10**9])
def test_nonsense_is_not_believed_without_end(read: int) -> None:
    estimator = Estimator()
    for _ in range(1000):
        estimator.learn(1000, read, estimator.ratio)
    assert 0.1 < estimator.ratio < 10
    assert estimator.pairs("q", ["d"])[0] >= 1
