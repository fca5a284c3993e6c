"""PodDisruptionBudget: a drain of nodes takes one replica of a model at a time."""

from rerank_api import names
from rerank_api.model_deployment import ModelDeployment, ModelDeploymentSpec
from rerank_operator.builders.metadata import owner_reference
from rerank_operator.resources import Object


def is_wanted(spec: ModelDeploymentSpec) -> bool:
    """Whether a model can have more than one replica.

    To a single one the budget makes no difference, and the cluster's disruption controller counts pods for
    each. A rollout that starts a second pod beside it makes none either: one is expected, and one may be
    missing.
    """
    most = spec.replicas if spec.autoscaling is None else spec.autoscaling.max_replicas
    return most > 1


def pod_disruption_budget(model: ModelDeployment) -> Object:
    """The PodDisruptionBudget of `model`, where it is wanted.

    It says what may be missing, not what must stay: so a last replica, or one that is not ready, never holds
    up a drain.
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
