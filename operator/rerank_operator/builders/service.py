"""Service: headless; its EndpointSlices tell the gateway where the ready replicas are."""

from rerank_api import names
from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders.metadata import owner_reference
from rerank_operator.resources import Object


def service(model: ModelDeployment) -> Object:
    """The Service of `model`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.child_name(model.metadata.name),
            "namespace": model.metadata.namespace,
            "labels": names.model_labels(model.metadata.name),
            "ownerReferences": [owner_reference(model)],
        },
        "spec": {
            "clusterIP": "None",
            "selector": {names.MODEL_LABEL: model.metadata.name},
            "ports": [
                {
                    "name": names.HTTP_PORT_NAME,
                    "port": names.HTTP_PORT,
                    "targetPort": names.HTTP_PORT_NAME,
                    "protocol": "TCP",
                }
            ],
        },
    }
