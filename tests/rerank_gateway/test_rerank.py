"""The data path over real sockets, from a client's request to a strict engine and back."""

import asyncio
import base64
import dataclasses
import itertools
import json
from typing import Any

import pytest

from rerank_api import backend_token, keys
from rerank_gateway import dispatcher
from rerank_gateway.config import Settings
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import Behaviour, FakeEngine
from tests.rerank_gateway.harness import BODY, MASTER, MINTED, PANDA, Running, running, slice_of, until

# A character of the secret is another: the checksum is wrong.
MISTYPED = MINTED.text[:20] + ("b" if MINTED.text[20] == "a" else "a") + MINTED.text[21:]


def basic(user: str, password: str) -> str:
    """What an HTTP client sends for http://user:password@host."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_panda_comes_first(gateway: Running) -> None:
    answer = await gateway.rerank(headers={"X-Request-Id": "r-1"})
    assert answer.status == 200
    assert answer.headers["X-Request-Id"] == "r-1"
    assert answer.body == {
        "id": "rerank-r-1",
        "object": "list",
        "model": "minilm",
        "results": [
            {"index": 2, "relevance_score": 0.8, "document": {"text": PANDA[2]}},
            {"index": 1, "relevance_score": 0.6, "document": {"text": PANDA[1]}},
            {"index": 0, "relevance_score": 0.0, "document": {"text": "hi"}},
        ],
        "usage": {"prompt_tokens": 43, "total_tokens": 43},
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 43},
        },
    }


async def test_the_plain_path_has_no_object_field(gateway: Running) -> None:
    answer = await gateway.rerank(path="/rerank")
    assert answer.status == 200
    assert "object" not in answer.body


async def test_equal_scores_keep_the_order_of_the_request(gateway: Running) -> None:
    answer = await gateway.rerank(documents=["x", "panda", "y", "panda"], query="panda")
    assert [result["index"] for result in answer.body["results"]] == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"top_n": None, "max_tokens_per_doc": None, "return_documents": None}, {}),
        ({"top_n": "2"}, {"top_n": 2}),
        ({"top_n": 2.0}, {"top_n": 2}),
        ({"top_n": 0}, {}),
        ({"top_n": 99}, {"top_n": 3}),
        ({"max_tokens_per_doc": 4096}, {"max_tokens_per_doc": 4096}),
        ({"max_tokens_per_doc": "7"}, {"max_tokens_per_doc": 7}),
        ({"documents": [{"text": text, "title": "t"} for text in PANDA]}, {}),
        ({"documents": [PANDA[0], {"text": PANDA[1]}, PANDA[2]]}, {}),
        ({"rank_fields": ["a"], "priority": -1, "request_id": "x", "truncate_prompt_tokens": -1}, {}),
    ],
)
async def test_what_reaches_the_engine_is_rebuilt_from_an_allow_list(
    gateway: Running, engine: FakeEngine, fields: dict[str, Any], sent: dict[str, Any]
) -> None:
    answer = await gateway.rerank(
        headers={"Cookie": "a=b", "traceparent": "00-1-2-3", "X-Request-Id": "mine"}, **fields
    )
    assert answer.status == 200, answer.body
    assert engine.seen[0].body == {**BODY, **sent}
    names = {name for name, _ in engine.seen[0].headers}
    assert names == {
        *("host", "authorization", "x-request-id", "x-rerank-documents"),
        *("content-type", "content-length"),
    }
    assert "mine" not in str(engine.seen[0])
    assert MINTED.text not in str(engine.seen[0])


async def test_a_repeated_json_key_is_decided_before_anything_is_checked(
    gateway: Running, engine: FakeEngine
) -> None:
    gateway.source.put(objects.api_key(MINTED, models=["other"]), objects.model("other", repo=None))
    body = b'{"model":"minilm","query":"q","documents":["d"],"model":"other"}'
    assert (await gateway.rerank(body)).status == 503  # "other" has no replica
    assert (await gateway.rerank(body.replace(b"other", b"minilm"))).status == 403
    assert engine.seen == []


async def test_documents_are_left_out_on_request(gateway: Running) -> None:
    answer = await gateway.rerank(return_documents=False, top_n=1)
    assert answer.body["results"] == [{"index": 2, "relevance_score": 0.8}]


@pytest.mark.parametrize("name", ["minilm", "best", "sentence-transformers/all-MiniLM-L6-v2"])
async def test_a_model_answers_to_its_names(gateway: Running, engine: FakeEngine, name: str) -> None:
    gateway.source.put(objects.model(aliases=["best"]))
    answer = await gateway.rerank(model=name)
    assert answer.status == 200
    assert answer.body["model"] == engine.seen[0].body["model"] == "minilm"


async def test_bodies_larger_than_a_megabyte_pass(gateway: Running, engine: FakeEngine) -> None:
    documents = ["é" * 700 + f" {number}" for number in range(2000)]
    answer = await gateway.rerank(documents=documents, query="77")
    assert answer.status == 200
    assert answer.body["results"][0]["index"] == 77
    parts = [seen.body["documents"] for seen in engine.seen]
    assert sorted(itertools.chain(*parts)) == sorted(documents)
    assert max(map(len, parts)) <= 32


async def test_a_chunked_body_is_read(gateway: Running) -> None:
    async def chunks() -> Any:
        for byte in json.dumps(BODY).encode():
            yield bytes([byte])

    headers = {"Authorization": f"Bearer {MINTED.text}", "Content-Type": "application/json"}
    async with gateway.session.post(gateway.url + "/v1/rerank", data=chunks(), headers=headers) as response:
        assert response.status == 200


# Who may do what


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (objects.api_key(MINTED), 200, ""),
        (objects.api_key(MINTED, models=["minilm"]), 200, ""),
        (objects.api_key(MINTED, models=["sentence-transformers/all-MiniLM-L6-v2"]), 200, ""),
        (objects.api_key(MINTED, models=["other"]), 403, "model_forbidden"),
        (objects.api_key(MINTED, models=[]), 403, "model_forbidden"),
        (objects.api_key(MINTED, disabled=True), 401, "api_key_disabled"),
        (objects.api_key(MINTED, expiresAt="2026-01-02T00:00:00Z"), 401, "api_key_expired"),
        (objects.api_key(MINTED, hash_expires_at="2026-01-02T00:00:00Z"), 401, "api_key_expired"),
        (objects.api_key(MINTED, not_before="2999-01-01T00:00:00Z"), 401, "api_key_not_yet_valid"),
        (objects.api_key(MINTED, deletion="2026-01-02T00:00:00Z"), 401, "api_key_disabled"),
        (objects.api_key(keys.mint()), 401, "invalid_api_key"),
        (objects.api_key(MINTED, expiresAt="2999-01-02T00:00:00+02:00"), 200, ""),
    ],
)
async def test_what_a_key_may_do(
    gateway: Running, engine: FakeEngine, key: objects.Object, status: int, code: str
) -> None:
    gateway.source.put(key)
    answer = await gateway.rerank()
    assert answer.status == status
    if status != 200:
        assert answer.body["error"]["code"] == code
        assert answer.body["message"] == answer.body["detail"] == answer.body["error"]["message"]
        assert engine.seen == []
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


async def test_a_key_stops_at_the_next_request_when_it_is_deleted(gateway: Running) -> None:
    assert (await gateway.rerank()).status == 200
    gateway.source.remove(objects.api_key(MINTED))
    assert (await gateway.rerank()).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": MINTED.text}, 401),
        ({"Authorization": f"Basic {MINTED.text}"}, 401),
        ({"Authorization": basic("any", MINTED.text)}, 200),
        ({"Authorization": basic("", MINTED.text).replace("Basic", "basic")}, 200),
        ({"Authorization": basic(MINTED.text, "")}, 401),
        ({"Authorization": "Basic é"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": f"Bearer {MINTED.text[:-1]}"}, 401),
        (
            {"Authorization": f"Bearer {MISTYPED}"},
            401,
        ),
        ({"Authorization": f"Bearer {keys.mint().text}"}, 401),
        ({"Authorization": f"bearer  {MINTED.text} "}, 200),
        ({"X-API-Key": MINTED.text}, 200),
        ({"X-API-Key": "é"}, 401),
        ({"X-API-Key": MINTED.text, "Authorization": f"Bearer {MINTED.text}"}, 400),
    ],
)
async def test_how_a_key_is_sent(gateway: Running, headers: dict[str, str], status: int) -> None:
    answer = await gateway.rerank(key=None, headers=headers)
    assert answer.status == status
    if status != 200:
        assert "rk_" not in answer.body["message"]


@pytest.mark.parametrize(
    ("text", "status"),
    [("0123456789abcdef" * 2, 200), ("a-b.c/d~" * 64, 200), ("a" * 31, 401), ("a" * 513, 401)],
)
async def test_a_key_of_one_s_own_is_as_good_as_a_made_one(gateway: Running, text: str, status: int) -> None:
    """Nobody's password, though: what is short enough to be guessed is no key, whatever hash is listed."""
    own = dataclasses.replace(MINTED, sha256=keys.digest(text))
    gateway.source.put(objects.api_key(own, name="own"))
    assert (await gateway.rerank(key=text)).status == status


async def test_keys_of_one_s_own_need_no_status_and_end_with_their_entry(gateway: Running) -> None:
    one, other = ("one of my own keys, " + "x" * 20, "another of my own keys, " + "x" * 20)
    key = objects.api_key(MINTED, hashes=[{"sha256": keys.digest(one)}])
    gateway.source.put(key)
    assert [(await gateway.rerank(key=text)).status for text in (one, other, MINTED.text)] == [200, 401, 401]
    past = {"sha256": keys.digest(one), "expiresAt": "2026-01-02T00:00:00Z"}
    key = objects.api_key(MINTED, hashes=[past, {"sha256": keys.digest(other)}])
    gateway.source.put({**key, "status": {}})
    assert [(await gateway.rerank(key=text)).status for text in (one, other, MINTED.text)] == [401, 200, 401]


async def test_a_key_that_its_owner_disabled_is_not_taken_over_by_a_copy_of_its_hash(
    gateway: Running,
) -> None:
    gateway.source.put(
        objects.api_key(MINTED, disabled=True),
        objects.api_key(MINTED, name="copy", created="2026-02-01T00:00:00Z"),
    )
    answer = await gateway.rerank()
    assert (answer.status, answer.body["error"]["code"]) == (401, "api_key_disabled")


async def test_both_keys_work_while_one_replaces_the_other(gateway: Running) -> None:
    new = keys.mint()
    key = objects.api_key(MINTED, hash_expires_at="2999-01-01T00:00:00Z")
    key["status"]["hashes"] += objects.api_key(new)["status"]["hashes"]
    gateway.source.put(key)
    assert [(await gateway.rerank(key=text)).status for text in (MINTED.text, new.text)] == [200, 200]
    key = objects.api_key(MINTED, hash_expires_at="2026-01-02T00:00:00Z")
    key["status"]["hashes"] += objects.api_key(new)["status"]["hashes"]
    gateway.source.put(key)
    assert [(await gateway.rerank(key=text)).status for text in (MINTED.text, new.text)] == [401, 200]


async def test_a_model_of_another_namespace_is_unknown(empty: Running) -> None:
    empty.source.put(objects.model(namespace="team-b"))
    answer = await empty.rerank()
    assert (answer.status, answer.param) == (404, "model")


async def test_a_shared_model_is_asked_with_the_token_of_its_own_namespace(empty: Running) -> None:
    async with FakeEngine() as engine:
        empty.source.put(
            objects.api_key(MINTED),
            objects.model(namespace="team-b", shared_with=["default"]),
            *slice_of([engine], namespace="team-b"),
        )
        assert (await empty.rerank()).status == 200
        answer = await empty.rerank(model="team-b/minilm")
        assert (answer.status, answer.body["model"]) == (200, "minilm")
        tokens = {dict(seen.headers)["authorization"] for seen in engine.seen}
    assert tokens == {f"Bearer {backend_token.token(MASTER, 'team-b')}"}


async def test_the_models_of_a_key_hold_for_shared_ones_too(empty: Running) -> None:
    empty.source.put(
        objects.api_key(MINTED, models=["minilm"]),
        objects.model(namespace="team-b", shared_with=["default"]),
    )
    answer = await empty.rerank()
    assert answer.status == 403
    assert 'spec.models would have to list "team-b/minilm"' in answer.body["message"]


async def test_each_namespace_has_its_own_backend_token(empty: Running) -> None:
    other = keys.mint()
    async with FakeEngine() as engine:
        empty.source.put(
            objects.api_key(other, namespace="team-b"),
            objects.model(),
            objects.model(namespace="team-b"),
            *slice_of([engine]),
            *slice_of([engine], namespace="team-b"),
        )
        assert [(await empty.rerank(key=key)).status for key in (MINTED.text, other.text)] == [200, 200]
        first, second = (dict(seen.headers)["authorization"] for seen in engine.seen)
    assert first != second
    assert MASTER.hex() not in first + second


# What is refused


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": ["a"]}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "hi"}, "documents"),
        ({"documents": {"text": "hi"}}, "documents"),
        ({"documents": ["a", 1]}, "documents[1]"),
        ({"documents": ["a", {"title": "t"}]}, "documents[1]"),
        ({"documents": [None]}, "documents[0]"),
        ({"documents": ["a"] * 10_001}, "documents"),
        ({"top_n": -1}, "top_n"),
        ({"top_n": 2**64}, "top_n"),
        ({"max_tokens_per_doc": 1e30}, "max_tokens_per_doc"),
        ({"top_n": True}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"top_n": "many"}, "top_n"),
        ({"top_n": "9" * 30}, "top_n"),
        ({"max_tokens_per_doc": [1]}, "max_tokens_per_doc"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"return_documents": 1}, "return_documents"),
    ],
)
async def test_a_wrong_field_is_named(
    gateway: Running, engine: FakeEngine, fields: dict[str, Any], param: str
) -> None:
    answer = await gateway.rerank(**fields)
    assert (answer.status, answer.param) == (400, param)
    assert param.split("[", maxsplit=1)[0] in answer.body["message"]
    assert engine.seen == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b'{"model":"\\ud800"}', b'{"a":NaN}', b"[" * 5000],
)
async def test_a_body_that_is_no_json_object(gateway: Running, body: bytes) -> None:
    answer = await gateway.rerank(body)
    assert answer.status == 400
    assert "JSON" in answer.body["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "Application/JSON"}, 200),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 200),
    ],
)
async def test_only_plain_json_is_read(gateway: Running, headers: dict[str, str], status: int) -> None:
    assert (await gateway.rerank(json.dumps(BODY).encode(), headers=headers)).status == status


async def test_unknown_paths_and_methods_have_the_same_error_shape(gateway: Running) -> None:
    missing = await gateway.rerank(path="/v9/rerank")
    assert missing.status == 404
    assert missing.body["error"]["code"] == "path_not_found"
    wrong = await gateway.get("/v1/rerank")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert wrong.body["error"]["code"] == "method_not_allowed"


async def test_no_ready_replica_is_503_with_retry_after(empty: Running) -> None:
    empty.source.put(objects.model())
    answer = await empty.rerank()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert answer.body["error"]["code"] == "model_not_ready"


# What a replica does


async def test_the_engines_reason_passes_when_the_caller_caused_it(
    gateway: Running, engine: FakeEngine
) -> None:
    engine.reject = True
    answer = await gateway.rerank(documents=["hi", "word " * 600])
    assert (answer.status, answer.param) == (400, "documents[1]")
    assert "documents[1] has 600 tokens; 504 fit" in answer.body["message"]
    assert answer.body["error"]["code"] == "refused_by_model"
    # A caller who asks for less gets an answer even so.
    answer = await gateway.rerank(documents=["hi", "word " * 600], max_tokens_per_doc=100)
    assert (answer.status, answer.body["meta"]["truncated"]["documents"]) == (200, [1])


async def test_a_listwise_models_limit_is_told(gateway: Running, engine: FakeEngine) -> None:
    engine.max_documents = 2
    answer = await gateway.rerank()
    assert (answer.status, answer.param) == (400, "documents")
    assert "documents holds 3 texts. This model takes 2 at most" in answer.body["message"]


async def test_what_was_cut_is_told(gateway: Running) -> None:
    answer = await gateway.rerank(documents=["panda", "word " * 600, "bear", "word " * 700], top_n=1)
    assert answer.status == 200
    assert answer.body["meta"]["truncated"] == {"documents": [1, 3], "count": 2}
    # The next answer over the same connection has nothing of it.
    assert "truncated" not in (await gateway.rerank()).body["meta"]


async def test_of_many_cut_documents_the_first_are_named(gateway: Running) -> None:
    answer = await gateway.rerank(documents=["a b"] * 150, max_tokens_per_doc=1)
    assert answer.body["meta"]["truncated"] == {"documents": list(range(100)), "count": 150}


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        ("busy", 503, "model_overloaded"),
        ("fail", 502, "backend_error"),
        ("nan", 502, "backend_error"),
        ("leak", 400, "refused_by_model"),
        ("empty_results", 502, "backend_error"),
        ("index_out_of_range", 502, "backend_error"),
        ("wrong_report", 502, "backend_error"),
        ("not_json", 502, "backend_error"),
        ("not_http", 502, "backend_error"),
        ("reset", 503, "model_unreachable"),
        ("reset_midway", 503, "model_unreachable"),
    ],
)
async def test_a_failing_replica_shows_neither_address_nor_trace(
    gateway: Running, engine: FakeEngine, behaviour: Behaviour, status: int, code: str
) -> None:
    engine.always = behaviour
    answer = await gateway.rerank()
    assert (answer.status, answer.body["error"]["code"]) == (status, code)
    assert ("Retry-After" in answer.headers) == (status == 503)
    text = json.dumps(answer.body)
    for secret in ("10.", "fd00", "127.0.0.1", str(engine.port), "Traceback", "vllm", "8000"):
        assert secret not in text
    assert len(engine.seen) == 1


async def test_a_refused_backend_token_is_not_the_clients_fault(gateway: Running, engine: FakeEngine) -> None:
    engine.token = "other"
    assert (await gateway.rerank()).status == 502


@pytest.mark.parametrize("behaviour", ["drain", "reset", "reset_midway"])
async def test_one_retry_on_another_replica(
    pair: Running, engine: FakeEngine, second: FakeEngine, behaviour: Behaviour
) -> None:
    engine.always = behaviour
    for _ in range(8):
        assert (await pair.rerank()).status == 200
    # Set aside after its first failure, not asked again for every request.
    assert len(engine.seen) <= 1
    assert len(second.seen) == 8


async def test_the_successor_of_a_draining_replica_is_waited_for(
    gateway: Running, engine: FakeEngine, second: FakeEngine
) -> None:
    engine.always = "drain"
    request = asyncio.create_task(gateway.rerank())
    await until(lambda: len(engine.seen) == 1)
    gateway.source.put(*slice_of([second]))
    assert (await request).status == 200
    assert (len(engine.seen), len(second.seen)) == (1, 1)


async def test_a_draining_replica_without_a_successor(
    gateway: Running, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_SUCCESSOR_SECONDS", 0.01)
    engine.always = "drain"
    answer = await gateway.rerank()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert len(engine.seen) == 1


async def test_a_replica_that_refuses_connections_costs_no_request(
    pair: Running, engine: FakeEngine, second: FakeEngine
) -> None:
    await engine.stop()
    assert [(await pair.rerank()).status for _ in range(6)] == [200] * 6
    assert len(second.seen) == 6


async def test_no_request_is_tried_more_than_twice(
    gateway: Running, engine: FakeEngine, second: FakeEngine
) -> None:
    async with FakeEngine() as third:
        engines = [engine, second, third]
        for one in engines:
            one.always = "reset"
        gateway.source.put(*slice_of(engines))
        assert (await gateway.rerank()).status == 503
        assert sum(len(one.seen) for one in engines) == 2


async def test_a_stale_connection_is_retried_on_the_only_replica(
    gateway: Running, engine: FakeEngine
) -> None:
    assert (await gateway.rerank()).status == 200
    engine.cut_reused = True
    assert (await gateway.rerank()).status == 200
    assert [seen.connection for seen in engine.seen] == [0, 1]


async def test_requests_share_connections(gateway: Running, engine: FakeEngine) -> None:
    for _ in range(3):
        await gateway.rerank()
    assert engine.connections == 1


async def test_the_connections_of_a_removed_replica_are_closed(pair: Running, engine: FakeEngine) -> None:
    engine.always = "hold"
    waiting = asyncio.create_task(pair.rerank())
    other = asyncio.create_task(pair.rerank())
    await until(lambda: len(engine.seen) == 1)
    pair.source.remove(slice_of([engine])[0])
    engine.release.set()
    assert [(await task).status for task in (waiting, other)] == [200, 200]
    await until(lambda: engine.open == 0)


async def test_the_least_loaded_replica_gets_the_request(
    pair: Running, engine: FakeEngine, second: FakeEngine
) -> None:
    for one in (engine, second):
        one.always = "hold"
    big = asyncio.create_task(pair.rerank(documents=["long " * 400] * 50))
    await until(lambda: len(engine.seen) + len(second.seen) == 1)
    free = second if engine.seen else engine
    small = [asyncio.create_task(pair.rerank()) for _ in range(5)]
    await until(lambda: len(free.seen) == 5)
    for one in (engine, second):
        one.release.set()
    assert {(await task).status for task in (big, *small)} == {200}


async def test_a_client_that_leaves_stops_the_engine(gateway: Running, engine: FakeEngine) -> None:
    left = 'requests_total{code="499"'
    before = await gateway.metric(left)
    engine.always = "hold"
    request = asyncio.create_task(gateway.rerank())
    await until(lambda: len(engine.seen) == 1)
    request.cancel()
    await until(lambda: engine.abandoned == 1)
    assert await gateway.metric(left) == before + 1


async def test_the_deadline_ends_a_request(engine: FakeEngine) -> None:
    """So late that a busy machine has sent it by then."""
    engine.always = "hold"
    async with running(Settings(drain_seconds=0, request_timeout_seconds=1.5)) as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))
        answer = await gateway.rerank()
        assert (answer.status, answer.body["error"]["code"]) == (504, "deadline_exceeded")
        await until(lambda: engine.abandoned == 1)
    assert len(engine.seen) == 1
