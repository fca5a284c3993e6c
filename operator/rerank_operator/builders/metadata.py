"""What all children of a resource share in their metadata."""

import hashlib
import json

from rerank_api import names
from rerank_api.api_key import APIKey
from rerank_api.model_deployment import ModelDeployment
from rerank_operator.resources import Object

APPLIED_ANNOTATION = "rerank.dev/applied"


def owner_reference(owner: ModelDeployment | APIKey) -> Object:
    """Ties a child to its owner, so that garbage collection removes it even while the operator is down."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        # True would need the right to change finalizers, and would hold up deletion in the foreground.
        "blockOwnerDeletion": False,
    }


def is_owned(there: Object, owner_uid: str) -> bool:
    """Whether a live object is a child of the owner with this uid."""
    return any(owner.get("uid") == owner_uid for owner in there["metadata"].get("ownerReferences", ()))


def digest(value: object) -> str:
    """Sixteen hex digits that stand for a JSON value: the start of the SHA-256 of its canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_applied(intent: Object) -> Object:
    """The intent with its own digest as an annotation.

    Comparing what we want with what is there shows a field that is missing or wrong, but not one that we set
    earlier and no longer want; the digest does.
    """
    metadata = intent["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: digest(intent)}
    return {**intent, "metadata": {**metadata, "annotations": annotations}}
