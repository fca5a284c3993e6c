"""ConfigMap: which commit a branch or tag was resolved to, for the pods that start later."""

from rerank_api import names
from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders.metadata import owner_reference
from rerank_operator.resources import Object


def config_map(model: ModelDeployment, *, source_key: str, pin: str | None) -> Object:
    """The ConfigMap of `model`; `pin` is the 40-digit commit, None while it is not known."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.child_name(model.metadata.name),
            "namespace": model.metadata.namespace,
            "labels": names.model_labels(model.metadata.name),
            "ownerReferences": [owner_reference(model)],
        },
        "data": {source_key: pin} if pin else {},
    }
