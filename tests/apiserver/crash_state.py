"""What an operator made of a scenario, in words that are the same whenever and wherever it was played."""

import base64
import json
import re
from collections import Counter
from datetime import UTC, datetime

from rerank_api import backend_token, keys
from rerank_api.api_key import APIKey
from tests.apiserver.api import RERANK, Api, Object

TOKEN_SECRET = "rerank-backend-token"  # the name of a Secret

_CHILDREN = (
    ("/api/v1", "configmaps"),
    ("/api/v1", "services"),
    ("/api/v1", "secrets"),
    ("/apis/policy/v1", "poddisruptionbudgets"),
    ("/apis/networking.k8s.io/v1", "networkpolicies"),
    ("/apis/apps/v1", "deployments"),
)
# What differs from run to run, in JSON text, and what stands for it.
_WORDS = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "<time>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<sha256>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<digest>"),
)


def state(api: Api, namespace: str, *, system: str, entry: str) -> Object:
    """All that the operator of `namespace` is answerable for.

    Args:
        api: the administrator's view.
        namespace: where the scenario is played.
        system: the operator's own namespace.
        entry: its catalog entry.
    """
    children = {
        plural: {
            item["metadata"]["name"]: _intent(item)
            for item in api.items(
                f"{root}/namespaces/{namespace}/{plural}",
                labelSelector="app.kubernetes.io/managed-by=rerank-operator",
            )
        }
        for root, plural in _CHILDREN
    }
    ours = f"{RERANK}/namespaces/{namespace}"
    pods = api.items(f"/api/v1/namespaces/{namespace}/pods")
    master = api.get(f"/api/v1/namespaces/{system}/secrets/{TOKEN_SECRET}")["data"]["master"]
    found = {
        "children": children,
        "models": {m["metadata"]["name"]: m["status"] for m in api.items(f"{ours}/modeldeployments")},
        "keys": {k["metadata"]["name"]: _key(api, k) for k in api.items(f"{ours}/apikeys")},
        "system secrets": [s["metadata"]["name"] for s in api.items(f"/api/v1/namespaces/{system}/secrets")],
        "entry": api.get(f"{RERANK}/catalogmodels/{entry}")["spec"],
        "pods": sorted(
            p["metadata"]["labels"]["rerank.dev/model"]
            for p in pods
            if "deletionTimestamp" not in p["metadata"]
        ),
        "with the gateways' token": _with_token(children["deployments"], namespace, master),
    }
    text = json.dumps(found, sort_keys=True).replace(namespace, "<namespace>")
    for pattern, word in _WORDS:
        text = pattern.sub(word, text)
    known: Object = json.loads(text)
    return known


def accepted(key: Object) -> list[str]:
    """The hashes of an APIKey that a gateway would accept now."""
    now = datetime.now(UTC)
    return [
        known.sha256
        for known in APIKey.parse(key).status.hashes
        if known.expires_at is None or known.expires_at > now
    ]


def _intent(body: Object) -> Object:
    """An object without what the API server and the controllers made of it."""
    metadata = body["metadata"]
    return {
        "labels": metadata["labels"],
        "annotations": metadata.get("annotations", {}),
        "owners": [f"{owner['kind']}/{owner['name']}" for owner in metadata["ownerReferences"]],
        "type": body.get("type"),
        "spec": {k: v for k, v in body.get("spec", {}).items() if k not in {"clusterIP", "clusterIPs"}},
        "data": sorted(body["data"]) if body.get("type") else body.get("data"),
    }


def _key(api: Api, body: Object) -> Object:
    """The status without what chance made, and with what must be true of it."""
    status = dict(body["status"])
    for part in ("hashes", "keyId", "hint"):
        status.pop(part, None)
    if "secretName" in status:
        secret = api.find(
            f"/api/v1/namespaces/{body['metadata']['namespace']}/secrets/{status['secretName']}"
        )
        text = base64.b64decode(secret["data"]["key"]).decode() if secret else ""
        status["the Secret holds the newest key"] = keys.digest(text) == accepted(body)[-1]
    return {**status, "accepted": len(accepted(body))}


def _with_token(deployments: dict[str, Object], namespace: str, secret: str) -> list[str]:
    """The Deployments whose pods take the token that the gateways send."""
    master = backend_token.read_master(base64.b64decode(secret).decode())
    wanted = backend_token.token_hash(backend_token.token(master, namespace))
    return [name for name, body in deployments.items() if wanted in json.dumps(body)]


def told(api: Api, namespace: str) -> Counter[str]:
    """The news of keys, and how often they were told. Some are lost with an operator."""
    events = api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    return Counter(
        f"{e['regarding']['name']} {e['reason']}" for e in events if e["regarding"]["kind"] == "APIKey"
    )
