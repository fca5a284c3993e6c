"""The model pod's own port: nobody gets past the gateway by calling the pod."""

import base64
import json
import re

import pytest

from rerank_api import backend_token
from tests.cluster.harness.cluster import SYSTEM, Cluster
from tests.cluster.harness.fixtures import Tutorial
from tests.cluster.harness.gateway import question
from tests.cluster.harness.http import JSON_BODY, Address, Answer, send

# Of vLLM 0.32.0: its API servers' and FastAPI's own. The pod's log adds what this vLLM says that it has.
KNOWN_PATHS = [
    "/classify",
    "/detokenize",
    "/docs",
    "/inference/v1/generate",
    "/invocations",
    "/load",
    "/metrics",
    "/openapi.json",
    "/ping",
    "/pooling",
    "/redoc",
    "/rerank",
    "/score",
    "/tokenize",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/rerank",
    "/v1/score",
    "/v2/rerank",
    "/version",
]
ALLOWED = {("POST", "/v1/rerank"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/health")}
HTTP_PORT = 8000
STATUS_PORT = 8081


@pytest.fixture(scope="module")
def pod(cluster: Cluster, tutorial: Tutorial) -> str:
    """The address of a pod that serves."""
    [found, *_] = cluster.ready_pods_of("minilm", "default")
    return str(found["status"]["podIP"])


@pytest.fixture(scope="module")
def paths(cluster: Cluster, tutorial: Tutorial) -> list[str]:
    """Every path of vLLM's server that is known, from its own log as well."""
    [found, *_] = cluster.ready_pods_of("minilm", "default")
    log = cluster.kubectl("logs", found["metadata"]["name"], "--namespace=default", "--container=serve")
    logged = re.findall(r"Route: (/[^,\s]*), Methods:", log)
    return sorted(set(KNOWN_PATHS) | {path for path in logged if "{" not in path} - {"/health"})


def call(pod: str, method: str, path: str, token: str | None) -> Answer:
    """Ask the pod itself, as another pod in the cluster could."""
    headers = {**JSON_BODY, **({"Authorization": f"Bearer {token}"} if token is not None else {})}
    body = json.dumps(question("minilm")).encode() if method == "POST" else None
    return send(Address(pod, HTTP_PORT), method, path, headers=headers, body=body)


def the_token(cluster: Cluster) -> str:
    """What the gateway sends to pods of namespace default."""
    found = cluster.api.get("secrets", "rerank-backend-token", SYSTEM)
    assert found is not None
    master = bytes.fromhex(base64.b64decode(found["data"]["master"]).decode().strip())
    return backend_token.token(master, "default")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
@pytest.mark.parametrize("token", [None, "", "wrong"], ids=["absent", "empty", "wrong"])
def test_every_path_wants_the_token(pod: str, paths: list[str], method: str, token: str | None) -> None:
    answers = {path: call(pod, method, path, token).status for path in [*paths, "/", "/v1/rerank/"]}
    assert set(answers.values()) == {401}, {p: s for p, s in answers.items() if s != 401}


@pytest.mark.parametrize(
    "trick", ["//v1/rerank", "/health/../v1/rerank", "/%761/rerank", "/health/", "/health?x=/"]
)
def test_no_way_around_by_spelling(pod: str, trick: str) -> None:
    answer = call(pod, "POST", trick, None)
    assert answer.status in {401, 404, 405}, str(answer)
    assert b"results" not in answer.body


def test_a_users_key_is_not_the_token(pod: str, tutorial: Tutorial) -> None:
    assert call(pod, "POST", "/v1/rerank", tutorial.key).status == 401


def test_another_namespaces_token_is_refused(pod: str, cluster: Cluster) -> None:
    assert call(pod, "POST", "/v1/rerank", the_token(cluster)).status == 200
    found = cluster.api.get("secrets", "rerank-backend-token", SYSTEM)
    assert found is not None
    master = bytes.fromhex(base64.b64decode(found["data"]["master"]).decode().strip())
    assert call(pod, "POST", "/v1/rerank", backend_token.token(master, "other")).status == 401


def test_health_is_open(pod: str) -> None:
    assert call(pod, "GET", "/health", None).status == 200


def test_with_the_token_only_what_the_gateway_needs(pod: str, paths: list[str], cluster: Cluster) -> None:
    token = the_token(cluster)
    wrong = {}
    for method in ("GET", "POST"):
        for path in [*paths, "/health"]:
            status = call(pod, method, path, token).status
            if status != (200 if (method, path) in ALLOWED else 404):
                wrong[method, path] = status
    assert not wrong


def test_the_status_port_tells_no_secret_and_takes_no_order(pod: str, cluster: Cluster) -> None:
    """/status is for the operator to read; /drain is for the pod itself."""
    address = Address(pod, STATUS_PORT)
    answer = send(address, "GET", "/status")
    assert answer.status == 200
    assert the_token(cluster).encode() not in answer.body
    for method in ("GET", "POST"):
        assert send(address, method, "/drain").status in {403, 404, 405}
    assert send(address, "GET", "/readyz").status == 200
