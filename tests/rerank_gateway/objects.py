"""Kubernetes objects as `kubectl get -o yaml` prints them, for tests."""

from collections.abc import Sequence
from typing import Any

from rerank_api import keys
from rerank_api.names import GATEWAY_PEERS_LABEL, MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL

Object = dict[str, Any]
CREATED = "2026-01-01T00:00:00Z"


def api_key(
    minted: keys.MintedKey,
    *,
    name: str = "search",
    namespace: str = "default",
    created: str = CREATED,
    not_before: str = CREATED,
    hash_expires_at: str | None = None,
    deletion: str | None = None,
    **spec: Any,
) -> Object:
    entry = {"keyId": minted.key_id, "sha256": minted.sha256, "notBefore": not_before}
    if hash_expires_at:
        entry["expiresAt"] = hash_expires_at
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created, "resourceVersion": "1"}
    if deletion:
        metadata["deletionTimestamp"] = deletion
    return {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "APIKey",
        "metadata": metadata,
        "spec": spec,
        "status": {"keyId": minted.key_id, "hint": minted.hint, "hashes": [entry]},
    }


def model(
    name: str = "minilm",
    *,
    namespace: str = "default",
    repo: str | None = "sentence-transformers/all-MiniLM-L6-v2",
    aliases: Sequence[str] = (),
    created: str = CREATED,
    context_length: int | None = 512,
    catalog: str | None = None,
    shared_with: Sequence[str] = (),
    replicas: int = 1,
    autoscaling: Object | None = None,
    phase: str | None = None,
    listwise: bool = False,
    prefix_caching: bool = False,
    cache_scores: bool | None = None,
) -> Object:
    """A model of a repository, of a volume (`repo` None), or of the catalog (the status tells `repo`)."""
    source: Object = (
        {"huggingFace": {"repo": repo}} if repo else {"persistentVolumeClaim": {"claimName": "weights"}}
    )
    status: Object = {"model": {"contextLength": context_length}} if context_length else {}
    if catalog is not None:
        source = {"catalog": catalog}
        status.setdefault("model", {}).update({"repo": repo} if repo else {})
    access: Object = {"access": {"namespaces": list(shared_with)}} if shared_with else {}
    found = {
        **({"scoring": {"pointwise": False}} if listwise else {}),
        **({"prefixCaching": True} if prefix_caching else {}),
    }
    if found:
        status.setdefault("model", {}).update(found)
    if phase:
        status["phase"] = phase
    spec: Object = {"model": source, "aliases": list(aliases), "replicas": replicas, **access}
    if cache_scores is not None:
        spec["scoring"] = {"cacheScores": cache_scores}
    if autoscaling is not None:
        spec["autoscaling"] = autoscaling
    return {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": created,
            "resourceVersion": "1",
        },
        "spec": spec,
        "status": status,
    }


def endpoint_slice(
    addresses: Sequence[str],
    *,
    port: int = 8000,
    of: str = "minilm",
    name: str | None = None,
    namespace: str = "default",
    conditions: Object | None = None,
    port_name: str = "http",
    labels: Object | None = None,
) -> Object:
    ready = {"ready": True, "serving": True, "terminating": False}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"rerank-{of}-x",
            "namespace": namespace,
            "labels": labels or {MODEL_LABEL: of, MANAGED_BY_LABEL: MANAGED_BY},
            "resourceVersion": "1",
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [a], "conditions": conditions or ready} for a in addresses],
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }


def peers_slice(port: int, *, serving: bool = True, terminating: bool = False) -> Object:
    """A gateway on loopback as the Service `rerank-gateway-peers` publishes it: ready in any case."""
    return endpoint_slice(
        ["127.0.0.1"],
        port=port,
        name=f"rerank-gateway-peers-{port}",
        namespace="rerank-system",
        conditions={"ready": True, "serving": serving, "terminating": terminating},
        port_name="internal",
        labels={GATEWAY_PEERS_LABEL: "true", MANAGED_BY_LABEL: "Helm"},
    )
