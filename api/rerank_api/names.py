"""The names that the operator writes and the gateway reads."""

import hashlib
from typing import Final

GROUP: Final = "rerank.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FIELD_MANAGER: Final = "rerank-operator"
# Managers of their own: a status applied without usage must not take usage away, nor usage the rest.
USAGE_FIELD_MANAGER: Final = f"{FIELD_MANAGER}/usage"
AUTOSCALING_FIELD_MANAGER: Final = f"{FIELD_MANAGER}/autoscaling"
MEASURED_FIELD_MANAGER: Final = f"{FIELD_MANAGER}/measured"

MODEL_LABEL: Final = f"{GROUP}/model"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "rerank-operator"
NAME_LABEL: Final = "app.kubernetes.io/name"

# What the pods of the installation itself carry as their name.
OPERATOR: Final = "rerank-operator"
GATEWAY: Final = "rerank-gateway"

HTTP_PORT: Final = 8000
HTTP_PORT_NAME: Final = "http"
STATUS_PORT: Final = 8081
STATUS_PORT_NAME: Final = "status"
INTERNAL_PORT_NAME: Final = "internal"  # of gateways

# On the Service, and so on its EndpointSlices, by which gateways find one another.
GATEWAY_PEERS_LABEL: Final = f"{GROUP}/gateway-peers"

API_KEY_SECRET_TYPE: Final = f"{GROUP}/api-key"
API_KEY_SECRET_FIELD: Final = "key"  # noqa: S105 - a field's name, not a secret

_MAX_NAME = 63  # a DNS label (RFC 1123), the tightest rule that any child's name meets


def child_name(model: str) -> str:
    """The name of every child (Deployment, Service, NetworkPolicy…) of the ModelDeployment `model`.

    The prefix makes it a valid Service name whatever the model's name starts with (RFC 1035 wants a
    letter). A name that would not fit ends in eight hex digits of its SHA-256 instead of being cut.
    """
    name = f"rerank-{model}"
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9].rstrip('-')}-{digest}"


def model_labels(model: str) -> dict[str, str]:
    """The labels of every child of the ModelDeployment `model`, its pods included."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        NAME_LABEL: "rerank-runtime",
        "app.kubernetes.io/instance": model,
        MODEL_LABEL: model,
    }


def api_key_labels() -> dict[str, str]:
    """The labels of the Secret of an APIKey."""
    return {MANAGED_BY_LABEL: MANAGED_BY, NAME_LABEL: "rerank-api-key"}


def secret_field_manager(api_key: str) -> str:
    """The field manager for the Secret of one APIKey.

    Each key has its own, so that two APIKeys that name one Secret conflict instead of overwriting
    each other.
    """
    return f"{FIELD_MANAGER}/{api_key}"
