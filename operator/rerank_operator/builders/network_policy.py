"""NetworkPolicy: who may open connections to the replicas of a model."""

from rerank_api import names
from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders.metadata import owner_reference
from rerank_operator.resources import Object

_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def network_policy(model: ModelDeployment, *, system_namespace: str) -> Object:
    """The NetworkPolicy of `model`: requests from the gateway, questions for the status from the operator.

    Both live in `system_namespace`. The kubelet's probes come from the node, which policies do not keep out.
    Policies add up: somebody who scrapes metrics is let in by another one.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": names.child_name(model.metadata.name),
            "namespace": model.metadata.namespace,
            "labels": names.model_labels(model.metadata.name),
            "ownerReferences": [owner_reference(model)],
        },
        "spec": {
            "podSelector": {"matchLabels": {names.MODEL_LABEL: model.metadata.name}},
            "policyTypes": ["Ingress"],
            "ingress": [
                _allowed(names.GATEWAY, system_namespace, port=names.HTTP_PORT),
                _allowed(names.OPERATOR, system_namespace, port=names.STATUS_PORT),
            ],
        },
    }


def _allowed(application: str, namespace: str, *, port: int) -> Object:
    peer = {
        "namespaceSelector": {"matchLabels": {_NAMESPACE_LABEL: namespace}},
        "podSelector": {"matchLabels": {names.NAME_LABEL: application}},
    }
    return {"from": [peer], "ports": [{"protocol": "TCP", "port": port}]}
