"""The gateway as a client on the host sees it: by its Service, and each replica by itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.harness.cluster import SYSTEM, Cluster
from tests.cluster.harness.http import JSON_BODY, Address, Answer, send
from tests.cluster.harness.objects import pod_is_ready

PANDA = (
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, "
    "is a bear species endemic to China."
)
QUERY = "What is a panda?"
DOCUMENTS = ["hi", "it is a bear", PANDA]
PORT = 8080


@dataclass(frozen=True)
class Gateway:
    """The Service's address, which kube-proxy serves on the node too, and its replicas' addresses."""

    cluster: Cluster

    @property
    def service(self) -> Address:
        found = self.cluster.api.get("services", "rerank-gateway", SYSTEM)
        assert found is not None, "the gateway's Service is not there"
        return Address(found["spec"]["clusterIP"], 80)

    @property
    def replicas(self) -> list[Address]:
        """Every replica that serves."""
        pods = self.cluster.api.list("pods", SYSTEM, labels="app.kubernetes.io/name=rerank-gateway")
        return [Address(pod["status"]["podIP"], PORT) for pod in pods if pod_is_ready(pod)]


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


def question(model: str, **more: Any) -> dict[str, Any]:
    """The tutorial's request."""
    return {"model": model, "query": QUERY, "documents": DOCUMENTS, "top_n": 3, **more}


def ask(address: Address, key: str, body: Mapping[str, Any]) -> Answer:
    """POST /v1/rerank with a key."""
    headers = {**bearer(key), **JSON_BODY}
    return send(address, "POST", "/v1/rerank", headers=headers, body=json.dumps(body).encode())


def ranking(answer: Answer) -> list[tuple[int, float]]:
    """Index and score of each result, in the order of the answer."""
    assert answer.status == 200, str(answer)
    return [(result["index"], result["relevance_score"]) for result in answer.json()["results"]]


def assert_panda_first(answer: Answer) -> None:
    """The panda text is the best of three distinct scores, which come in order."""
    ranked = ranking(answer)
    scores = [score for _, score in ranked]
    assert ranked[0][0] == DOCUMENTS.index(PANDA), ranked
    assert len(set(scores)) == 3, ranked
    assert scores == sorted(scores, reverse=True), ranked


def listing(address: Address, key: str) -> Answer:
    """GET /v1/models: asks the gateway alone, never a model."""
    return send(address, "GET", "/v1/models", headers=bearer(key), seconds=10)
