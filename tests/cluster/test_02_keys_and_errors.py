"""Who may ask what, and what every refusal looks like: one shape, no address, no stack trace."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.fixtures import Tutorial
from tests.cluster.harness.gateway import Gateway, ask, bearer, listing, question
from tests.cluster.harness.http import JSON_BODY, Address, Answer, send, send_until_refused
from tests.cluster.harness.objects import api_key, model
from tests.cluster.harness.waiting import wait_for

NAMESPACE = "default"
# Of pods, Services and the node. The client's own address is nobody's secret, but never appears either.
ADDRESS = re.compile(rb"\b10\.(244|96)\.\d+\.\d+\b|svc\.cluster\.local")
TRACE = re.compile(rb"Traceback|File \\?\"|\.py\b|aiohttp|uvicorn|ClientConnector")


def assert_refused(answer: Answer, status: int, *, param: str | None = None) -> dict[str, Any]:
    """An error has its status, the one shape of all errors, and says nothing of the inside."""
    assert answer.status == status, str(answer)
    body = answer.json()
    assert set(body) == {"error", "message", "detail"}, body
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}, body
    assert error["message"], body
    assert body["message"] == error["message"]
    assert body["detail"]
    assert error["type"], body
    assert error["code"], body
    assert error["param"] == param, body
    assert answer.headers["content-type"].startswith("application/json")
    everything = answer.body + str(dict(answer.headers)).encode()
    assert not ADDRESS.search(everything), answer
    assert not TRACE.search(everything), answer
    return error


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"X-API-Key": "rk_000000000000_0000000000000000000000000000000000000000000_000000"},
    ],
    ids=["absent", "empty", "malformed", "basic", "unknown"],
)
def test_no_key_or_a_wrong_one(gateway: Gateway, tutorial: Tutorial, headers: dict[str, str]) -> None:
    body = json.dumps(question("minilm")).encode()
    answer = send(gateway.service, "POST", "/v1/rerank", headers={**headers, **JSON_BODY}, body=body)
    assert_refused(answer, 401)
    assert "bearer" in answer.headers["www-authenticate"].lower()


def test_one_wrong_character(gateway: Gateway, tutorial: Tutorial) -> None:
    """A key that differs in its secret part alone, with a wrong checksum."""
    place = len(tutorial.key) // 2
    wrong = tutorial.key[:place] + ("a" if tutorial.key[place] != "a" else "b") + tutorial.key[place + 1 :]
    assert_refused(ask(gateway.service, wrong, question("minilm")), 401)


def test_an_expired_key_until_it_is_extended(cluster: Cluster, gateway: Gateway, tutorial: Tutorial) -> None:
    cluster.kubectl.apply(api_key("expiring", NAMESPACE, expiresAt="2099-01-01T00:00:00Z"))
    key = cluster.wait_key_ready("expiring", NAMESPACE)
    assert listing(gateway.service, key).status == 200
    patch = {"spec": {"expiresAt": "2020-01-01T00:00:00Z"}}
    assert_everywhere(
        gateway, key, 401, lambda: cluster.kubectl.patch("apikey", "expiring", NAMESPACE, patch)
    )
    assert_refused(ask(gateway.service, key, question("minilm")), 401)
    patch = {"spec": {"expiresAt": "2099-01-01T00:00:00Z"}}
    assert_everywhere(
        gateway, key, 200, lambda: cluster.kubectl.patch("apikey", "expiring", NAMESPACE, patch)
    )
    cluster.kubectl.delete("apikey", "expiring", NAMESPACE)


def test_a_key_without_the_model(cluster: Cluster, gateway: Gateway, tutorial: Tutorial) -> None:
    cluster.kubectl.apply(
        api_key("other-model", NAMESPACE, models=["another"]), api_key("no-model", NAMESPACE, models=[])
    )
    for name in ("other-model", "no-model"):
        key = cluster.wait_key_ready(name, NAMESPACE)
        assert_everywhere(gateway, key, 200, lambda: None)
        assert_refused(ask(gateway.service, key, question("minilm")), 403, param="model")
        assert listing(gateway.service, key).json()["data"] == []
        cluster.kubectl.delete("apikey", name, NAMESPACE)


def test_a_key_of_another_namespace(
    cluster: Cluster, gateway: Gateway, tutorial: Tutorial, other: str
) -> None:
    """Names resolve in the key's namespace: a model elsewhere does not exist for it."""
    cluster.kubectl.apply(api_key("stranger", other))
    key = cluster.wait_key_ready("stranger", other)
    assert_everywhere(gateway, key, 200, lambda: None)
    assert_refused(ask(gateway.service, key, question("minilm")), 404, param="model")


def test_revocation_by_deletion(cluster: Cluster, gateway: Gateway, tutorial: Tutorial) -> None:
    """Within a second at every replica, and the Secret goes with the APIKey."""
    cluster.kubectl.apply(api_key("deleted", NAMESPACE))
    key = cluster.wait_key_ready("deleted", NAMESPACE)
    assert_everywhere(gateway, key, 200, lambda: None)
    assert_everywhere(gateway, key, 401, lambda: cluster.kubectl.delete("apikey", "deleted", NAMESPACE))
    assert_refused(ask(gateway.service, key, question("minilm")), 401)


def test_revocation_by_disabling(cluster: Cluster, gateway: Gateway, tutorial: Tutorial) -> None:
    cluster.kubectl.apply(api_key("disabled", NAMESPACE))
    key = cluster.wait_key_ready("disabled", NAMESPACE)
    assert_everywhere(gateway, key, 200, lambda: None)
    for disabled, status in ((True, 401), (False, 200)):
        patch = {"spec": {"disabled": disabled}}

        def change(patch: dict[str, Any] = patch) -> None:
            cluster.kubectl.patch("apikey", "disabled", NAMESPACE, patch)

        assert_everywhere(gateway, key, status, change)
    cluster.kubectl.delete("apikey", "disabled", NAMESPACE)


def test_a_replaced_key_works_on_until_its_overlap_ends(
    cluster: Cluster, gateway: Gateway, tutorial: Tutorial
) -> None:
    cluster.kubectl.apply(api_key("replaced", NAMESPACE))
    former = cluster.wait_key_ready("replaced", NAMESPACE)
    cluster.kubectl.patch("apikey", "replaced", NAMESPACE, {"spec": {"version": 2}})

    def another() -> str | None:
        key = cluster.key_of("replaced", NAMESPACE)
        return key if key != former else None

    key = wait_for("the Secret has another key", another, seconds=30, story=cluster.story(NAMESPACE))
    assert_everywhere(gateway, key, 200, lambda: None)
    assert_everywhere(gateway, former, 200, lambda: None)
    patch = {"spec": {"overlapSeconds": 0}}
    assert_everywhere(
        gateway, former, 401, lambda: cluster.kubectl.patch("apikey", "replaced", NAMESPACE, patch)
    )
    assert listing(gateway.service, key).status == 200
    cluster.kubectl.delete("apikey", "replaced", NAMESPACE)


def test_a_new_key_works_within_a_second(cluster: Cluster, gateway: Gateway, tutorial: Tutorial) -> None:
    """Counted from the moment at which its Secret can be read."""
    cluster.kubectl.apply(api_key("fresh", NAMESPACE))
    key = cluster.key_of("fresh", NAMESPACE)
    assert_everywhere(gateway, key, 200, lambda: None)
    cluster.kubectl.delete("apikey", "fresh", NAMESPACE)


def assert_everywhere(
    gateway: Gateway, key: str, status: int, change: Callable[[], None], *, seconds: float = 1.0
) -> None:
    """After `change`, every replica of the gateway answers this key with that status in time."""
    replicas = gateway.replicas
    assert len(replicas) == 2, replicas
    change()
    begun = time.monotonic()
    waiting = set(replicas)
    last: dict[Address, Answer] = {}
    while waiting:
        asked = time.monotonic()
        for address in list(waiting):
            last[address] = listing(address, key)
            if last[address].status == status:
                waiting.discard(address)
        if waiting and asked - begun > seconds:
            raise AssertionError(
                f"{len(waiting)} of {len(replicas)} replicas do not answer {status} after {seconds} s: {last}"
            )


# Requests


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{not json", None),
        (b"[]", None),
        (b'{"query": "q", "documents": ["d"]}', "model"),
        (b'{"model": "minilm", "documents": ["d"]}', "query"),
        (b'{"model": "minilm", "query": 7, "documents": ["d"]}', "query"),
        (b'{"model": "minilm", "query": "q"}', "documents"),
        (b'{"model": "minilm", "query": "q", "documents": []}', "documents"),
        (b'{"model": "minilm", "query": "q", "documents": "d"}', "documents"),
        (b'{"model": "minilm", "query": "q", "documents": ["d", 7]}', "documents[1]"),
        (b'{"model": "minilm", "query": "q", "documents": ["d"], "top_n": "many"}', "top_n"),
        (b'{"model": "minilm", "query": "q", "documents": ["d"], "top_n": -1}', "top_n"),
    ],
)
def test_malformed_requests_name_the_field(
    gateway: Gateway, tutorial: Tutorial, body: bytes, param: str | None
) -> None:
    headers = {**bearer(tutorial.key), **JSON_BODY}
    error = assert_refused(
        send(gateway.service, "POST", "/v1/rerank", headers=headers, body=body), 400, param=param
    )
    if param is not None:
        assert param in error["message"]


def test_what_clients_really_send_is_understood(gateway: Gateway, tutorial: Tutorial) -> None:
    """Nulls, documents as objects, numbers as strings and unknown fields."""
    body = {
        "model": "minilm",
        "query": "q",
        "documents": [{"text": "one"}, "two"],
        "top_n": "1",
        "max_tokens_per_doc": None,
        "return_documents": False,
        "rank_fields": ["text"],
    }
    answer = ask(gateway.service, tutorial.key, body)
    assert answer.status == 200, str(answer)
    [result] = answer.json()["results"]
    assert "document" not in result


def test_a_document_that_is_too_long_is_cut_and_told(gateway: Gateway, tutorial: Tutorial) -> None:
    """One long document never fails a request, and is not cut in silence."""
    body = question("minilm", documents=["hi", "panda " * 3000, "it is a bear"])
    answer = ask(gateway.service, tutorial.key, body)
    assert answer.status == 200, str(answer)
    assert answer.json()["meta"]["truncated"] == {"documents": [1], "count": 1}
    assert sorted(result["index"] for result in answer.json()["results"]) == [0, 1, 2]


def test_unknown_model(gateway: Gateway, tutorial: Tutorial) -> None:
    answer = ask(gateway.service, tutorial.key_for_all, question("nonexistent"))
    assert "nonexistent" in assert_refused(answer, 404, param="model")["message"]


def test_unknown_path(gateway: Gateway, tutorial: Tutorial) -> None:
    assert_refused(send(gateway.service, "GET", "/v1/nothing", headers=bearer(tutorial.key)), 404)


def test_wrong_method(gateway: Gateway, tutorial: Tutorial) -> None:
    answer = send(gateway.service, "GET", "/v1/rerank", headers=bearer(tutorial.key))
    assert_refused(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_wrong_content_type(gateway: Gateway, tutorial: Tutorial) -> None:
    headers = {**bearer(tutorial.key), "Content-Type": "text/plain"}
    body = json.dumps(question("minilm")).encode()
    assert_refused(send(gateway.service, "POST", "/v1/rerank", headers=headers, body=body), 415)


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_over_long_body(gateway: Gateway, tutorial: Tutorial, chunked: bool) -> None:
    """A body beyond the chart's 10 MiB is refused, whether it is announced or found out on the way."""
    piece = b"x" * (1 << 20)
    head = (
        f"POST /v1/rerank HTTP/1.1\nHost: gateway\nAuthorization: Bearer {tutorial.key}\n"
        "Content-Type: application/json\n"
    )
    if chunked:
        head += "Transfer-Encoding: chunked"
        pieces = [b"100000\r\n" + piece + b"\r\n"] * 11 + [b"0\r\n\r\n"]
    else:
        head += f"Content-Length: {11 * len(piece)}"
        pieces = [piece] * 11
    assert_refused(send_until_refused(gateway.service, head, pieces), 413)


def test_no_replica_is_ready(cluster: Cluster, gateway: Gateway, tutorial: Tutorial, other: str) -> None:
    """A model that is scaled to zero exists and cannot answer: 503, and when to ask again."""
    cluster.kubectl.apply(model("idle", other, "demo/word-overlap", replicas=0), api_key("caller", other))
    key = cluster.wait_key_ready("caller", other)
    assert_everywhere(gateway, key, 200, lambda: None)
    for address in gateway.replicas:
        answer = ask(address, key, question("idle"))
        assert_refused(answer, 503, param=None)
        assert int(answer.headers["retry-after"]) > 0
