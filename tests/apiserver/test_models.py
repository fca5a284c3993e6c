"""ModelDeployments from apply to delete, against a real API server, controller manager and scheduler."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.apiserver.api import RERANK, Api, Object, eventually
from tests.apiserver.kubelet import DONE, RUNNING, Runtime, failed, node, offer, ready_report
from tests.apiserver.operator_process import Operator

COMMIT = "a" * 40

SPEC: Object = {
    "model": {"huggingFace": {"repo": "demo/word-overlap"}},
    "resources": {"gpu": {"count": 0}, "cpu": "100m", "memory": "1Gi"},
}


@pytest.fixture(autouse=True)
def _operator_runs(running: Operator) -> None:
    """Each test here has the operator running when it begins."""


@pytest.fixture
def runtimes(api: Api, namespace: str) -> Iterator[Callable[[str], Runtime]]:
    """Makes the runtime of a pod; their status ports close with the test."""
    made: list[Runtime] = []

    def make(pod: str) -> Runtime:
        made.append(Runtime(api, namespace, pod))
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()


def model_path(namespace: str, name: str = "m") -> str:
    return f"{RERANK}/namespaces/{namespace}/modeldeployments/{name}"


def child_path(namespace: str, kind: str, name: str = "rerank-m") -> str:
    root = "/apis/apps/v1" if kind == "deployments" else "/api/v1"
    return f"{root}/namespaces/{namespace}/{kind}/{name}"


def apply_model(api: Api, namespace: str, name: str = "m", **spec: Any) -> Object:
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {**copy.deepcopy(SPEC), **spec},
    }
    return api.apply(model_path(namespace, name), body)


def condition(body: Object, kind: str) -> Object:
    found = [c for c in body.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def settled(
    api: Api, namespace: str, accept: Callable[[Object], object], name: str = "m", *, seconds: float = 20
) -> Object:
    """The ModelDeployment once `accept` likes it."""

    def look() -> Object | None:
        body = api.get(model_path(namespace, name))
        return body if accept(body) else None

    try:
        return eventually("the ModelDeployment is as expected", look, seconds=seconds)
    except AssertionError as error:
        status = api.get(model_path(namespace, name)).get("status")
        raise AssertionError(f"{error}: {status}") from None


def pods(api: Api, namespace: str, count: int) -> list[str]:
    """The names of the model's pods once there are `count` that stay."""

    def look() -> list[str] | None:
        found = api.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector="rerank.dev/model=m")
        names = sorted(p["metadata"]["name"] for p in found if "deletionTimestamp" not in p["metadata"])
        return names if len(names) == count else None

    return eventually(f"{count} pods", look)


def bound(api: Api, namespace: str, pod: str) -> None:
    eventually(
        f"{pod} is bound",
        lambda: api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["spec"].get("nodeName"),
    )


def test_from_apply_to_ready(
    api: Api, namespace: str, runtimes: Callable[[str], Runtime], running: Operator
) -> None:
    """Each step of a replica's start shows in phase and conditions, and the commit is pinned."""
    with node(api, "n-start"):
        apply_model(api, namespace)
        (name,) = pods(api, namespace, 1)
        bound(api, namespace, name)
        runtime = runtimes(name)

        download = {"bytes": 50, "totalBytes": 100, "etaSeconds": 7}
        source = {"repo": "demo/word-overlap", "revision": COMMIT}
        runtime.serve({"phase": "Downloading", "source": source, "download": download})
        runtime.set(fetch=RUNNING)
        body = settled(api, namespace, lambda b: b["status"].get("download"))
        assert body["status"]["phase"] == "Downloading"
        assert body["status"]["download"] == download
        assert body["status"]["message"] == "downloading demo/word-overlap: 50 % of 100 bytes, about 7 s left"
        assert condition(body, "Scheduled")["status"] == "True"
        assert condition(body, "Downloaded")["reason"] == "Downloading"

        def pinned() -> Object | None:
            data: Object = api.get(child_path(namespace, "configmaps")).get("data", {})
            return data or None

        assert list(eventually("the commit is pinned", pinned).values()) == [COMMIT]

        runtime.serve({"phase": "Starting", "source": source})
        runtime.set(fetch=DONE, serve=RUNNING)
        body = settled(api, namespace, lambda b: b["status"]["phase"] == "Starting")
        assert condition(body, "Downloaded")["status"] == "True"
        assert condition(body, "Downloaded")["message"] == f"demo/word-overlap at {COMMIT}"
        assert "download" not in body["status"]

        runtime.serve({"phase": "Verifying", "source": source})
        settled(api, namespace, lambda b: b["status"]["phase"] == "Verifying")

        runtime.serve(ready_report(COMMIT))
        runtime.set(fetch=DONE, serve=RUNNING, ready=True)
        body = settled(api, namespace, lambda b: b["status"]["phase"] == "Ready")
        assert body["status"]["ready"] == "1/1"
        assert body["status"]["replicas"] == body["status"]["readyReplicas"] == 1
        assert body["status"]["selector"] == "rerank.dev/model=m"
        assert body["status"]["model"] == {
            "repo": "demo/word-overlap",
            "revision": COMMIT,
            "family": "bert",
            "architecture": "BertForSequenceClassification",
            "parameters": 4385281,
            "weightsBytes": 17541124,
            "contextLength": 512,
            "scoring": {"method": "CrossEncoder", "range": "[0,1]"},
        }
        for kind in ("Scheduled", "Downloaded", "Serving", "ScoringVerified", "Progressing", "Ready"):
            assert condition(body, kind)["status"] == "True", kind
            assert condition(body, kind)["observedGeneration"] == body["metadata"]["generation"]

        def told() -> set[str]:
            events = api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
            return {e["reason"] for e in events if e["regarding"]["kind"] == "ModelDeployment"}

        milestones = {"Scheduled", "Downloading", "Downloaded", "ScoringVerified", "Ready"}
        eventually("the milestones are told", lambda: told() == milestones)
