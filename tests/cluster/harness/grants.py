"""What RBAC lets a service account do, one permission at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.cluster.harness.api import Api
from tests.cluster.harness.audit import Event


@dataclass(frozen=True)
class Grant:
    """One verb on one resource."""

    group: str
    resource: str
    verb: str
    namespace: str
    """Where it holds; '' is everywhere."""
    names: tuple[str, ...]
    """The only objects that it holds for; empty is all."""

    def used_by(self, event: Event) -> bool:
        """Return whether that request needed this permission.

        A server-side apply that makes an object is a `patch` in the audit log, answered 201, and needs the
        permission to create as well. https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        verbs = {event.verb, "create"} if (event.verb, event.code) == ("patch", 201) else {event.verb}
        return (
            self.verb in verbs
            and (self.group, self.resource) == (event.group, event.resource)
            and self.namespace in {"", event.namespace}
            and (not self.names or event.name in self.names)
        )


def grants_of(api: Api, account: str, namespace: str) -> list[Grant]:
    """Return all that is bound to a service account by name."""
    grants: list[Grant] = []
    for binding in [*api.list("clusterrolebindings"), *api.list("rolebindings")]:
        subjects = binding.get("subjects") or []
        wanted = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        if any(wanted.items() <= subject.items() for subject in subjects):
            scope = binding["metadata"].get("namespace", "")
            grants += _expand(_rules(api, binding["roleRef"], scope), scope)
    return grants


def _rules(api: Api, reference: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    if reference["kind"] == "ClusterRole":
        role = api.get("clusterroles", reference["name"])
    else:
        role = api.get("roles", reference["name"], namespace)
    assert role is not None, reference
    rules: list[dict[str, Any]] = role["rules"]
    return rules


def _expand(rules: list[dict[str, Any]], namespace: str) -> Iterator[Grant]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield Grant(group, resource, verb, namespace, tuple(rule.get("resourceNames", ())))
