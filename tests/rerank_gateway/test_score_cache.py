"""Scores that were computed before: used where they are surely the same, and nowhere else."""

from typing import Any

import pytest

from rerank_api import backend_token, keys
from rerank_gateway.config import Settings
from rerank_gateway.records import ObjectId
from rerank_gateway.rerank_request import RerankRequest
from rerank_gateway.score_cache import ENTRY_BYTES, Keys, ScoreCache
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MASTER, PANDA, Running, running, slice_of

asynchronous = pytest.mark.asyncio(loop_scope="session")
MODEL = ObjectId("default", "minilm")


def key(
    *,
    model: ObjectId = MODEL,
    namespace: str = "default",
    plan: bytes = b"p",
    query: str = "q",
    document: str = "d",
    most: int | None = None,
) -> bytes:
    return Keys(model, namespace, plan, RerankRequest(query, ["x"], 1, most)).of(document)


@pytest.mark.parametrize(
    "other",
    [
        {"model": ObjectId("default", "other")},
        {"model": ObjectId("team-b", "minilm")},
        {"model": ObjectId("defaultm", "inilm")},  # what is beside it does not run into it
        {"namespace": "team-b"},
        {"plan": b"other"},
        {"query": "Q"},
        {"query": "qd", "document": ""},
        {"document": "D"},
        {"most": 7},
    ],
)
def test_a_score_is_kept_under_all_that_it_depends_on(other: dict[str, Any]) -> None:
    assert key(**other) != key()
    assert key() == key()


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = ScoreCache(3 * ENTRY_BYTES)
    for name in "abc":
        cache.put(name.encode(), ord(name))
    assert cache.get(b"a") == ord("a")
    cache.put(b"d", 1.0)
    assert [cache.get(name.encode()) for name in "abcd"] == [ord("a"), None, ord("c"), 1.0]
    assert len(cache) == 3


def test_no_room_keeps_nothing() -> None:
    cache = ScoreCache(0)
    cache.put(b"a", 1.0)
    assert cache.get(b"a") is None


def caching(gateway: Running, engine: FakeEngine, **fields: Any) -> None:
    engine.plan = "plan-1"
    gateway.source.put(objects.model(**{"cache_scores": True, **fields}))


@asynchronous
async def test_a_known_score_is_not_asked_for_again(gateway: Running, engine: FakeEngine) -> None:
    caching(gateway, engine)
    hits = 'score_cache_documents_total{model="minilm",namespace="default",outcome="hit"}'
    before = await gateway.metric(hits)
    first = await gateway.rerank(documents=[*PANDA, "hi"])
    assert "cached" not in first.body["meta"]
    again = await gateway.rerank(documents=["new", *PANDA, "hi"], top_n=2)
    assert again.body["meta"]["cached"] == 4
    assert again.body["usage"]["prompt_tokens"] == 5 + 1 + 3  # of the new one alone
    assert [(r["index"], r["relevance_score"]) for r in again.body["results"]] == [(3, 0.8), (2, 0.6)]
    assert [seen.body["documents"] for seen in engine.seen] == [PANDA, ["new"]]
    assert all("top_n" not in seen.body for seen in engine.seen)
    # All of it is known: nobody is asked.
    whole = await gateway.rerank()
    assert (whole.body["meta"]["cached"], whole.body["usage"]["total_tokens"]) == (3, 0)
    assert whole.body["results"] == [
        {**result, "index": PANDA.index(result["document"]["text"])} for result in first.body["results"][:3]
    ]
    assert len(engine.seen) == 2
    assert await gateway.metric(hits) - before == 6


@asynchronous
@pytest.mark.parametrize(
    ("model", "plan", "fields"),
    [
        ({"cache_scores": None}, "plan-1", {}),
        ({"cache_scores": False}, "plan-1", {}),
        ({"listwise": True}, "plan-1", {}),
        ({}, "", {}),  # a replica that does not say what it serves
        ({}, "plan-1", {"query": "another one"}),
        ({}, "plan-1", {"max_tokens_per_doc": 9}),
    ],
)
async def test_what_may_differ_is_asked_again(
    gateway: Running, engine: FakeEngine, model: dict[str, Any], plan: str, fields: dict[str, Any]
) -> None:
    caching(gateway, engine, **model)
    engine.plan = plan
    await gateway.rerank()
    answer = await gateway.rerank(**fields)
    assert "cached" not in answer.body["meta"]
    assert engine.seen[1].body["documents"] == PANDA


@asynchronous
async def test_nothing_is_known_while_replicas_serve_different_things(
    pair: Running, engine: FakeEngine, second: FakeEngine
) -> None:
    caching(pair, engine)
    second.plan = "plan-2"
    for _ in range(12):  # a rollout: one commit here, another one there
        assert "cached" not in (await pair.rerank()).body["meta"]
    pair.source.remove(slice_of([engine])[0])
    assert (await pair.rerank()).body["meta"]["cached"] == 3


@asynchronous
async def test_what_was_cut_is_told_again(gateway: Running, engine: FakeEngine) -> None:
    caching(gateway, engine)
    texts = ["panda", "word " * 600]
    for _ in range(2):
        answer = await gateway.rerank(documents=texts)
        assert answer.body["meta"]["truncated"] == {"documents": [1], "count": 1}
    assert answer.body["meta"]["cached"] == 1


@asynchronous
async def test_another_namespace_learns_nothing_from_what_is_known(
    gateway: Running, engine: FakeEngine
) -> None:
    other = keys.mint()
    gateway.source.put(objects.api_key(other, namespace="team-b"))
    caching(gateway, engine, shared_with=["team-b"])
    await gateway.rerank()
    answer = await gateway.rerank(key=other.text)
    assert (answer.status, "cached" in answer.body["meta"]) == (200, False)
    assert len(engine.seen) == 2


@asynchronous
async def test_a_catalog_entry_may_ask_for_it(gateway: Running, engine: FakeEngine) -> None:
    engine.plan = "plan-1"
    body = objects.model()
    body["status"]["effective"] = {"scoring": {"cacheScores": True}}
    gateway.source.put(body)
    await gateway.rerank()
    assert (await gateway.rerank()).body["meta"]["cached"] == 3
    body["spec"]["scoring"] = {"cacheScores": False}  # and its user may not
    gateway.source.put({**body, "metadata": {**body["metadata"], "resourceVersion": "2"}})
    assert "cached" not in (await gateway.rerank()).body["meta"]


@asynchronous
async def test_score_requests_know_scores_too(gateway: Running, engine: FakeEngine) -> None:
    caching(gateway, engine)
    body = {"model": "minilm", "text_1": "panda", "text_2": ["panda", "bear"]}
    assert "meta" not in (await gateway.rerank(body, path="/v1/score")).body
    answer = await gateway.rerank(body, path="/v1/score")
    assert answer.body["meta"] == {"cached": 2}
    assert [entry["score"] for entry in answer.body["data"]] == [1.0, 0.0]


@asynchronous
async def test_without_memory_nothing_is_known() -> None:
    async with (
        FakeEngine(token=backend_token.token(MASTER, "default"), plan="plan-1") as engine,
        running(Settings(drain_seconds=0, score_cache_bytes=0)) as gateway,
    ):
        gateway.source.put(objects.model(cache_scores=True), *slice_of([engine]))
        for _ in range(2):
            assert "cached" not in (await gateway.rerank()).body["meta"]
