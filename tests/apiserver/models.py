"""ModelDeployments as tests of the operator write and read them."""

import copy
from collections.abc import Callable
from typing import Any

from tests.apiserver.api import RERANK, Api, Object, eventually

COMMIT = "a" * 40

SPEC: Object = {
    "model": {"huggingFace": {"repo": "demo/word-overlap"}},
    "resources": {"gpu": {"count": 0}, "cpu": "100m", "memory": "1Gi"},
}


def model_path(namespace: str, name: str = "m") -> str:
    return f"{RERANK}/namespaces/{namespace}/modeldeployments/{name}"


def child_path(namespace: str, kind: str, name: str = "rerank-m") -> str:
    roots = {
        "deployments": "/apis/apps/v1",
        "networkpolicies": "/apis/networking.k8s.io/v1",
        "poddisruptionbudgets": "/apis/policy/v1",
    }
    return f"{roots.get(kind, '/api/v1')}/namespaces/{namespace}/{kind}/{name}"


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
    api: Api, namespace: str, accept: Callable[[Object], object], name: str = "m", *, seconds: float = 60
) -> Object:
    """The ModelDeployment once `accept` likes it."""

    def look() -> Object | None:
        body = api.get(model_path(namespace, name))
        return body if "status" in body and accept(body) else None

    try:
        return eventually("the ModelDeployment is as expected", look, seconds=seconds)
    except AssertionError as error:
        status = api.get(model_path(namespace, name)).get("status")
        raise AssertionError(f"{error}: {status}") from None


def because(api: Api, namespace: str, kind: str, reason: str, words: str = "") -> str:
    """The message of the condition `kind` once its reason is `reason` and it has these words.

    The first message may be made from a list of nodes of a second ago, with those of the test before; the
    operator soon looks again.
    """

    def told(body: Object) -> bool:
        found = condition(body, kind)
        return found.get("reason") == reason and words in found["message"]

    message = condition(settled(api, namespace, told), kind)["message"]
    assert isinstance(message, str)
    return message
