"""What the chart's roles allow, asked of a real API server, which also knows aggregation and bindings."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dev.cluster.access import Access
from dev.cluster.commands import run
from dev.cluster.waiting import wait_until
from manifests.render import CHART, KUBE_VERSION, NAMESPACE
from tests.apiserver.api import Api

OPERATOR = f"system:serviceaccount:{NAMESPACE}:rerank-operator"
GATEWAY = f"system:serviceaccount:{NAMESPACE}:rerank-gateway"
EDITOR, VIEWER = "chart-editor", "chart-viewer"
TEAM, OTHER, ELSEWHERE = "chart-team", "chart-other", "chart-elsewhere"
RIGHTS = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def apply_rights(cluster: Access, namespace: str, *values: str) -> None:
    """Apply the chart's accounts and roles, as a release in a namespace would have them.

    Not by `helm install`: other tests of the session apply the same objects from the plain install.
    """
    render: list[str | Path] = [
        cluster.programs / "helm",
        "template",
        "--kube-version",
        KUBE_VERSION,
        "rerank-operator",
        CHART,
    ]
    chart = run([*render, "--namespace", namespace, *values])
    rights = [item for item in yaml.safe_load_all(chart) if item and item["kind"] in RIGHTS]
    kubectl = [*cluster.kubectl, "apply", "--server-side", "--force-conflicts", "--filename=-"]
    run(kubectl, stdin=yaml.safe_dump_all(rights))


def create_namespace(cluster: Access, name: str) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    run([*cluster.kubectl, "apply", "--filename=-"], stdin=yaml.safe_dump(namespace))


def allowed(cluster: Access, user: str, verb: str, resource: str, namespace: str) -> bool:
    """Ask as a user; kubectl exits 1 for a no. A resource may have a subresource: `pods:exec`."""
    what, _, part = resource.partition(":")
    question = [
        "auth",
        "can-i",
        verb,
        what,
        f"--subresource={part}",
        f"--as={user}",
        f"--namespace={namespace}",
    ]
    asked = subprocess.run([*cluster.kubectl, *question], check=False, capture_output=True, text=True)
    assert asked.stdout.strip() in ("yes", "no"), asked.stderr
    return asked.returncode == 0


@pytest.fixture(scope="module")
def installed(control_plane: Access, api: Api) -> Iterator[Access]:
    """The chart's rights for the whole cluster, and two people with built-in roles in one namespace."""
    for namespace in (NAMESPACE, TEAM, OTHER):
        create_namespace(control_plane, namespace)
    for user, role in ((EDITOR, "edit"), (VIEWER, "view")):
        binding = ["create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}"]
        run([*control_plane.kubectl, *binding, f"--namespace={TEAM}"])
    apply_rights(control_plane, NAMESPACE)
    wait_until(
        "the built-in roles have the chart's rules",
        lambda: allowed(control_plane, EDITOR, "create", "apikeys.rerank.dev", TEAM),
        seconds=30,
    )
    yield control_plane
    apply_rights(control_plane, NAMESPACE)  # roles of the whole cluster have one name: other tests need them


@pytest.mark.parametrize(
    ("user", "verb", "resource", "answer"),
    [
        (OPERATOR, "patch", "modeldeployments.rerank.dev:status", True),
        (OPERATOR, "patch", "apikeys.rerank.dev:status", True),
        (OPERATOR, "get", "apikeys.rerank.dev", True),
        (OPERATOR, "patch", "apikeys.rerank.dev", False),
        (OPERATOR, "list", "endpointslices.discovery.k8s.io", False),
        (OPERATOR, "create", "secrets", True),
        (OPERATOR, "delete", "secrets", True),
        (OPERATOR, "get", "secrets", False),
        (OPERATOR, "list", "secrets", False),
        (OPERATOR, "watch", "secrets", False),
        (OPERATOR, "update", "modeldeployments.rerank.dev", False),
        (OPERATOR, "delete", "deployments.apps", False),
        (OPERATOR, "create", "pods", False),
        (OPERATOR, "create", "pods:exec", False),
        (OPERATOR, "create", "rolebindings.rbac.authorization.k8s.io", False),
        (GATEWAY, "watch", "apikeys.rerank.dev", True),
        (GATEWAY, "watch", "endpointslices.discovery.k8s.io", True),
        (GATEWAY, "patch", "apikeys.rerank.dev:status", False),
        (GATEWAY, "list", "secrets", False),
        (GATEWAY, "list", "pods", False),
        (EDITOR, "create", "modeldeployments.rerank.dev", True),
        (EDITOR, "delete", "apikeys.rerank.dev", True),
        (EDITOR, "patch", "modeldeployments.rerank.dev:scale", True),
        (EDITOR, "patch", "modeldeployments.rerank.dev:status", False),
        (EDITOR, "update", "apikeys.rerank.dev:status", False),
        (VIEWER, "list", "modeldeployments.rerank.dev", True),
        (VIEWER, "get", "apikeys.rerank.dev", True),
        (VIEWER, "create", "apikeys.rerank.dev", False),
    ],
)
def test_rights_where_models_live(
    installed: Access, user: str, verb: str, resource: str, answer: bool
) -> None:
    assert allowed(installed, user, verb, resource, TEAM) is answer


@pytest.mark.parametrize(("user", "resource"), [(EDITOR, "modeldeployments.rerank.dev"), (VIEWER, "pods")])
def test_people_stay_in_their_namespace(installed: Access, user: str, resource: str) -> None:
    assert not allowed(installed, user, "list", resource, OTHER)


def test_the_lease_is_the_operator_s_own_alone(installed: Access) -> None:
    assert allowed(installed, OPERATOR, "update", "leases.coordination.k8s.io/rerank-operator", NAMESPACE)
    assert not allowed(installed, OPERATOR, "update", "leases.coordination.k8s.io/another", NAMESPACE)
    assert not allowed(installed, OPERATOR, "update", "leases.coordination.k8s.io/rerank-operator", TEAM)


def test_with_named_namespaces_the_others_are_out_of_reach(installed: Access) -> None:
    create_namespace(installed, ELSEWHERE)
    apply_rights(installed, ELSEWHERE, f"--set=watchNamespaces={{{TEAM}}}")
    questions = (
        ("rerank-operator", "patch", "deployments.apps"),
        ("rerank-operator", "create", "secrets"),
        ("rerank-gateway", "list", "apikeys.rerank.dev"),
    )
    for account, verb, resource in questions:
        user = f"system:serviceaccount:{ELSEWHERE}:{account}"
        assert allowed(installed, user, verb, resource, TEAM)
        assert not allowed(installed, user, verb, resource, OTHER)
    gateway = f"system:serviceaccount:{ELSEWHERE}:rerank-gateway"
    assert allowed(installed, gateway, "watch", "endpointslices.discovery.k8s.io", ELSEWHERE)  # the others
    assert not allowed(installed, gateway, "list", "apikeys.rerank.dev", ELSEWHERE)
    operator = f"system:serviceaccount:{ELSEWHERE}:rerank-operator"
    assert allowed(installed, operator, "create", "secrets", ELSEWHERE)  # the backend token
