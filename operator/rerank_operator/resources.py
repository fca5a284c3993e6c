"""The kinds of objects that the operator reads and writes, and where the API server serves them."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from rerank_api import names

Object = dict[str, Any]
"""An object of the API server, as in JSON."""


def named(body: Object) -> str:
    """An object as people are told of it: "Kind name"."""
    return f"{body['kind']} {body['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object and where the API server serves it. `api_version` as in YAML ("v1", "apps/v1")."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of an object, or of the collection."""
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        parts = [root]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part is not None]
        return "/".join(parts)


MODEL_DEPLOYMENT: Final = Resource(names.API_VERSION, "ModelDeployment", "modeldeployments")
API_KEY: Final = Resource(names.API_VERSION, "APIKey", "apikeys")
CATALOG_MODEL: Final = Resource(names.API_VERSION, "CatalogModel", "catalogmodels")
DEPLOYMENT: Final = Resource("apps/v1", "Deployment", "deployments")
SERVICE: Final = Resource("v1", "Service", "services")
POD_DISRUPTION_BUDGET: Final = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY: Final = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
CONFIG_MAP: Final = Resource("v1", "ConfigMap", "configmaps")
SECRET: Final = Resource("v1", "Secret", "secrets")
NODE: Final = Resource("v1", "Node", "nodes")
POD: Final = Resource("v1", "Pod", "pods")
EVENT: Final = Resource("events.k8s.io/v1", "Event", "events")
LEASE: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")
