"""Objects as a user writes them, and short reads of what came back."""

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]

API_VERSION = "rerank.dev/v1alpha1"


# What serving a small model is planned with, and a little more; it takes half. Six such pods fit on a node of
# 24 GB beside all else.
SERVING = {"gpu": {"count": 0}, "cpu": "100m", "memory": "2560Mi"}
# Enough for what never comes to start vLLM.
REFUSED = {"gpu": {"count": 0}, "cpu": "50m", "memory": "512Mi"}


def model(name: str, namespace: str, repo: str, **more: Any) -> Object:
    """A ModelDeployment on the CPU.

    Args:
        name: metadata.name.
        namespace: metadata.namespace.
        repo: repository on the demo hub.
        more: further fields of spec, or of spec.model.huggingFace under `source`.
    """
    source = more.pop("source", {})
    return model_from(name, namespace, {"huggingFace": {"repo": repo, **source}}, **more)


def model_from(name: str, namespace: str, source: Mapping[str, Any], **more: Any) -> Object:
    """A ModelDeployment with any source."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": dict(source),
            "resources": SERVING,
            **more,
        },
    }


def catalog_model(name: str, repo: str, **more: Any) -> Object:
    """A CatalogModel of a repository on the demo hub; `more` are further fields of spec."""
    return {
        "apiVersion": API_VERSION,
        "kind": "CatalogModel",
        "metadata": {"name": name},
        "spec": {
            "displayName": "Word overlap",
            "description": "Scores a pair by the words that it shares.",
            "family": "bert",
            "license": "Apache-2.0",
            "languages": "en",
            "parameters": "4M",
            "contextLength": 512,
            "memory": "3 GiB",
            "source": {"huggingFace": {"repo": repo}},
            **more,
        },
    }


def api_key(name: str, namespace: str, **spec: Any) -> Object:
    """An APIKey; its Secret has the same name."""
    return {
        "apiVersion": API_VERSION,
        "kind": "APIKey",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def namespace_object(name: str) -> Object:
    """A namespace that admits nothing but pods that pass Pod Security `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secret(name: str, namespace: str, **data: str) -> Object:
    """An ordinary Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": data,
    }


def condition(found: Object | None, kind: str) -> dict[str, str]:
    """Return one condition of a custom resource, or {} where it has none yet."""
    conditions = ((found or {}).get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {})


def is_true(found: Object | None, kind: str) -> bool:
    """Return whether a condition is True and speaks of the newest spec."""
    if found is None:
        return False
    state = condition(found, kind)
    newest = state.get("observedGeneration") in {None, found["metadata"].get("generation")}
    return state.get("status") == "True" and newest


def phase(found: Object | None) -> str:
    """Return status.phase, or ''."""
    return str(((found or {}).get("status") or {}).get("phase", ""))


def pod_is_ready(pod: Object) -> bool:
    """Return whether a pod serves and is not on its way out."""
    return "deletionTimestamp" not in pod["metadata"] and condition(pod, "Ready").get("status") == "True"
