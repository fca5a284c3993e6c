"""PodDisruptionBudget: a drain of nodes takes one replica of a model at a time."""

from rerank_api import names
from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders.metadata import owner_reference
from rerank_operator.resources import Object


def pod_disruption_budget(model: ModelDeployment) -> Object:
    """The PodDisruptionBudget of `model`.

    It says what may be missing, not what must stay: so a single replica, or one that is not ready, never
    holds up a drain.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": names.child_name(model.metadata.name),
            "namespace": model.metadata.namespace,
            "labels": names.model_labels(model.metadata.name),
            "ownerReferences": [owner_reference(model)],
        },
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {names.MODEL_LABEL: model.metadata.name}},
        },
    }
