"""Every dialect over real sockets: what is asked in it, what the engine gets, what comes back."""

import asyncio
from typing import Any

import pytest

from rerank_api import keys
from rerank_gateway.dialects import fields, score
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MINTED, PANDA, Running, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUERY = "what is a panda bear"
ASKED = {"model": "minilm", "query": QUERY, "documents": PANDA}
USAGE = {"prompt_tokens": 43, "total_tokens": 43}
META = {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 43}}
BARE = [{"index": index, "relevance_score": value} for index, value in ((2, 0.8), (1, 0.6), (0, 0.0))]
FULL = [{**entry, "document": {"text": PANDA[int(entry["index"])]}} for entry in BARE]


@pytest.mark.parametrize("path", ["/v2/rerank", "/v1/rerank", "/rerank", "/models/minilm/rerank"])
async def test_the_rerank_paths_differ_in_their_defaults_only(gateway: Running, path: str) -> None:
    answer = await gateway.rerank(ASKED, path=path, headers={"X-Request-Id": "r"})
    assert answer.status == 200
    assert answer.body == {
        "id": "rerank-r",
        **({"object": "list"} if path.startswith("/v1/") else {}),
        "model": "minilm",
        "results": BARE if path == "/v2/rerank" else FULL,
        "usage": USAGE,
        "meta": {"api_version": {"version": path[2] if path.startswith("/v") else "1"}, **META},
    }


async def test_cohere_v2_returns_documents_when_asked(gateway: Running) -> None:
    answer = await gateway.rerank(ASKED, path="/v2/rerank", return_documents=True, priority=1)
    assert answer.body["results"] == FULL


@pytest.mark.parametrize(
    ("rank_fields", "sent"),
    [
        (None, ["a bear", "plain"]),
        ([], ["a bear", "plain"]),
        (["text"], ["a bear", "plain"]),
        (["title", "text"], ["title: Panda\ntext: a bear", "plain"]),
        (["title", "author"], ["title: Panda", "plain"]),
    ],
)
async def test_cohere_v1_ranks_the_fields_that_it_is_told(
    gateway: Running, engine: FakeEngine, rank_fields: Any, sent: list[str]
) -> None:
    documents = [{"text": "a bear", "title": "Panda", "year": 7}, "plain"]
    answer = await gateway.rerank(ASKED, documents=documents, rank_fields=rank_fields)
    assert answer.status == 200
    assert engine.seen[0].body["documents"] == sent


@pytest.mark.parametrize(
    "asked",
    [
        {"top_k": None, "truncation": True},
        {"top_k": 3, "truncation": None},
        {"top_k": "9", "return_documents": False},
        {"truncation": False, "top_n": 1},
    ],
)
async def test_voyage(gateway: Running, asked: dict[str, Any]) -> None:
    answer = await gateway.rerank(ASKED, **asked)
    assert answer.status == 200
    assert answer.body == {
        "object": "list",
        "data": BARE,
        "model": "minilm",
        "usage": {"total_tokens": 43},
    }


async def test_voyage_cuts_and_returns_documents(gateway: Running, engine: FakeEngine) -> None:
    answer = await gateway.rerank(ASKED, path="/rerank", top_k=1, return_documents=True)
    assert answer.body["data"] == [{"index": 2, "relevance_score": 0.8, "document": PANDA[2]}]
    assert engine.seen[0].body["top_n"] == 1


async def test_nulls_say_no_dialect(gateway: Running) -> None:
    answer = await gateway.rerank(ASKED, top_k=None, truncation=None, texts=None)
    assert answer.body["results"] == FULL


TEI = {"query": QUERY, "texts": PANDA}
SCORES = [{"index": 2, "score": 0.8}, {"index": 1, "score": 0.6}, {"index": 0, "score": 0.0}]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/models/minilm/rerank", {}),
        ("/models/sentence-transformers/all-MiniLM-L6-v2/rerank", {}),
        ("/models/sentence-transformers%2Fall-MiniLM-L6-v2/rerank", {}),
        ("/models/minilm/rerank", {"raw_scores": False, "truncate": True, "truncation_direction": "Right"}),
        ("/models/minilm/rerank", {"top_n": 1}),
        ("/models/minilm/rerank", {"model": "another"}),
        ("/rerank", {"model": "minilm"}),
        ("/v1/rerank", {"model": "minilm", "documents": None}),
    ],
)
async def test_tei(gateway: Running, engine: FakeEngine, path: str, asked: dict[str, Any]) -> None:
    answer = await gateway.rerank({**TEI, **asked}, path=path)
    assert answer.status == 200
    assert answer.body == SCORES
    assert engine.seen[0].body == {**ASKED}


async def test_tei_returns_texts_when_asked(gateway: Running) -> None:
    answer = await gateway.rerank({**TEI, "return_text": True}, path="/models/minilm/rerank")
    assert answer.body == [{**entry, "text": PANDA[int(entry["index"])]} for entry in SCORES]


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/models/unknown/rerank", 404, "model"),
        ("/rerank", 400, "model"),
        ("/models//rerank", 404, None),
        ("/models/rerank", 404, None),
        ("/models/minilm/score", 404, None),
    ],
)
async def test_the_model_of_a_path(gateway: Running, path: str, status: int, param: str | None) -> None:
    answer = await gateway.rerank(TEI, path=path)
    assert (answer.status, answer.param) == (status, param)


async def test_the_model_of_a_path_is_checked_and_wins(gateway: Running, engine: FakeEngine) -> None:
    narrow = keys.mint()
    gateway.source.put(
        objects.model("other", repo=None), objects.api_key(narrow, name="narrow", models=["other"])
    )
    answer = await gateway.rerank(ASKED, model="other", path="/models/minilm/rerank", key=narrow.text)
    assert answer.status == 403
    assert engine.seen == []
    assert (await gateway.get("/models/minilm/rerank")).status == 405


async def test_raw_scores_are_refused_not_ignored(gateway: Running) -> None:
    answer = await gateway.rerank({**TEI, "raw_scores": True}, path="/models/minilm/rerank")
    assert (answer.status, answer.param) == (400, "raw_scores")


# Scores


PAIRS = [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_one_query_and_many_documents(
    gateway: Running, engine: FakeEngine, path: str, first: str, second: str
) -> None:
    asked = {"model": "minilm", first: QUERY, second: PANDA}
    answer = await gateway.rerank(asked | {"truncate_prompt_tokens": None}, path=path)
    assert answer.status == 200
    created = answer.body.pop("created")
    assert created > 1_700_000_000
    assert answer.body == {
        "id": f"score-{answer.headers['X-Request-Id']}",
        "object": "list",
        "model": "minilm",
        "data": [
            {"index": index, "object": "score", "score": value} for index, value in enumerate((0.0, 0.6, 0.8))
        ],
        "usage": {**USAGE, "completion_tokens": 0},
    }
    assert engine.seen[0].body == ASKED
    assert len(engine.seen) == 1


@pytest.mark.parametrize("query", [QUERY, [QUERY], {"text": QUERY}])
@pytest.mark.parametrize("document", [PANDA[1], [PANDA[1]], {"text": PANDA[1]}])
async def test_one_pair(gateway: Running, query: Any, document: Any) -> None:
    answer = await gateway.rerank({"model": "minilm", "text_1": query, "text_2": document}, path="/score")
    assert [entry["score"] for entry in answer.body["data"]] == [0.6]


async def test_many_queries_are_grouped(gateway: Running, engine: FakeEngine) -> None:
    queries = ["panda", "bear", "panda", "hi", "bear", "panda"]
    documents = ["a panda", "a cat", "no", "hi", "bear bear", "panda hi"]
    answer = await gateway.rerank(
        {"model": "minilm", "data_1": queries, "data_2": documents, "max_tokens_per_doc": 7}, path="/score"
    )
    assert [entry["score"] for entry in answer.body["data"]] == [1, 0, 0, 1, 1, 1]
    assert answer.body["usage"]["prompt_tokens"] == 4 * 6 + sum(
        len(document.split()) for document in documents
    )
    bodies = sorted((seen.body for seen in engine.seen), key=lambda body: str(body["query"]))
    assert [(body["query"], body["documents"]) for body in bodies] == [
        ("bear", ["a cat", "bear bear"]),
        ("hi", ["hi"]),
        ("panda", ["a panda", "no", "panda hi"]),
    ]
    assert {body["max_tokens_per_doc"] for body in bodies} == {7}


async def test_many_queries_are_bounded_at_the_engine(gateway: Running, engine: FakeEngine) -> None:
    engine.always = "hold"
    texts = [f"text {number}" for number in range(30)]
    request = asyncio.create_task(
        gateway.rerank({"model": "minilm", "text_1": texts, "text_2": texts}, path="/score")
    )
    await until(lambda: len(engine.seen) == 8)
    engine.release.set()
    assert [entry["score"] for entry in (await request).body["data"]] == [1.0] * 30
    assert len(engine.seen) == 30
    assert engine.connections == 8


async def test_scores_come_whole_or_not_at_all(gateway: Running, engine: FakeEngine) -> None:
    texts = [f"text {number}" for number in range(20)]
    engine.behave.extend(("answer", "answer", "answer", "fail"))
    answer = await gateway.rerank({"model": "minilm", "text_1": texts, "text_2": texts}, path="/score")
    assert (answer.status, answer.body["error"]["code"]) == (502, "backend_error")
    assert len(engine.seen) < 20


async def test_a_client_that_leaves_stops_all_of_its_requests(gateway: Running, engine: FakeEngine) -> None:
    engine.always = "hold"
    texts = [f"text {number}" for number in range(20)]
    request = asyncio.create_task(
        gateway.rerank({"model": "minilm", "text_1": texts, "text_2": texts}, path="/score")
    )
    await until(lambda: len(engine.seen) == 8)
    request.cancel()
    await until(lambda: engine.abandoned == 8)
    assert len(engine.seen) == 8


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "queries"),
        ({"queries": "q"}, "documents"),
        ({"documents": "d"}, "queries"),
        ({"text_1": "q"}, "text_2"),
        ({"data_2": ["d"], "data_1": None}, "data_1"),
        ({"text_1": [], "text_2": ["d"]}, "text_1"),
        ({"text_1": "q", "text_2": []}, "text_2"),
        ({"text_1": ["a", "b"], "text_2": ["d"]}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": ["d"] * 3}, "text_1"),
        ({"text_1": "q", "text_2": ["d", 3]}, "text_2[1]"),
        ({"text_1": 7, "text_2": ["d"]}, "text_1[0]"),
        ({"text_1": "q", "text_2": "d", "model": None}, "model"),
        ({"text_1": "q", "text_2": ["d"] * (fields.MAX_DOCUMENTS + 1)}, "text_2"),
        (
            {
                f"text_{side}": [str(number) for number in range(score.MAX_DISTINCT_QUERIES + 1)]
                for side in "12"
            },
            "text_1",
        ),
    ],
)
async def test_what_is_no_list_of_pairs(
    gateway: Running, engine: FakeEngine, asked: dict[str, Any], param: str
) -> None:
    answer = await gateway.rerank({"model": "minilm", **asked}, path="/v1/score")
    assert (answer.status, answer.param) == (400, param)
    assert param.split("[", maxsplit=1)[0] in answer.body["message"]
    assert engine.seen == []


# Texts that are too long

LONG = "word " * 600


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": "q", "documents": ["a", LONG]}, "documents[1]"),
        ("/v1/rerank", {"query": "q", "documents": ["a", LONG], "top_k": 1}, "documents[1]"),
        ("/v1/rerank", {"query": "q", "texts": ["a", LONG]}, "texts[1]"),
        ("/v1/score", {"queries": "q", "items": ["a", LONG]}, "items[1]"),
        ("/v1/score", {"text_1": ["q", "p", "q"], "text_2": ["a", "b", LONG]}, "text_2[2]"),
    ],
)
async def test_a_refused_text_is_named_as_the_client_named_it(
    gateway: Running, engine: FakeEngine, path: str, body: dict[str, Any], param: str
) -> None:
    engine.reject = True
    answer = await gateway.rerank({"model": "minilm", **body}, path=path)
    assert (answer.status, answer.param) == (400, param)
    assert f"{param} has 600 tokens" in answer.body["message"]


async def test_a_refused_number_of_texts_is_named_too(gateway: Running, engine: FakeEngine) -> None:
    engine.max_documents = 2
    answer = await gateway.rerank(TEI, path="/models/minilm/rerank")
    assert (answer.status, answer.param) == (400, "texts")
    assert "texts holds 3 texts" in answer.body["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": "q", "documents": ["a", LONG], "truncation": False}, "documents[1]"),
        ("/v1/rerank", {"query": "q", "texts": ["a", LONG], "truncate": False}, "texts[1]"),
    ],
)
async def test_who_wants_no_cut_text_gets_none(
    gateway: Running, path: str, body: dict[str, Any], param: str
) -> None:
    answer = await gateway.rerank({"model": "minilm", **body}, path=path)
    assert (answer.status, answer.body["message"].split(" ", 1)[0]) == (400, f'"{param}"')
    wish = next(name for name in ("truncation", "truncate") if name in body)
    assert f'"{wish}" is false' in answer.body["message"]
    assert (await gateway.rerank({"model": "minilm", **body, wish: True}, path=path)).status == 200


async def test_scores_tell_what_was_cut(gateway: Running) -> None:
    answer = await gateway.rerank(
        {"model": "minilm", "text_1": ["q", "p", "q", "p"], "text_2": [LONG, "b", LONG, LONG]}, path="/score"
    )
    assert answer.body["meta"] == {"truncated": {"documents": [0, 2, 3], "count": 3}}


# Errors


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", ASKED),
        ("/v2/rerank", ASKED),
        ("/rerank", {**ASKED, "top_k": 1}),
        ("/models/minilm/rerank", TEI),
        ("/v1/score", {"model": "minilm", "text_1": "a", "text_2": "b"}),
    ],
)
async def test_errors_have_one_shape_in_every_dialect(
    gateway: Running, path: str, body: dict[str, Any]
) -> None:
    wrong = await gateway.rerank(body, path=path, key=keys.mint().text)
    empty = await gateway.rerank({"model": "minilm"}, path=path)
    for answer, status in ((wrong, 401), (empty, 400)):
        assert answer.status == status
        assert set(answer.body["error"]) == {"message", "type", "param", "code"}
        assert answer.body["message"] == answer.body["detail"] == answer.body["error"]["message"]


async def test_the_client_that_needs_it_gets_an_error_as_text(gateway: Running) -> None:
    """voyageai's: nothing in the head tells it, so it is known by how its bodies end, parsed or not."""
    for key, model in ((None, "minilm"), (MINTED.text, "unknown")):
        answer = await gateway.rerank(ASKED, model=model, key=key, top_k=None, truncation=True)
        assert answer.status in (401, 404)
        assert answer.body["error"] == answer.body["message"] == answer.body["detail"]
        quoted = await gateway.rerank(
            {"model": model, "query": "q", "documents": ['"truncation": true}']}, key=key
        )
        assert quoted.status == answer.status
        assert quoted.body["error"]["message"] == answer.body["error"]
