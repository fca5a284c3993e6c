"""Pod Security and RBAC: nothing runs with more than it needs, by the API server's own record."""

from collections.abc import Iterator

import pytest

from tests.cluster.harness.audit import WRITES
from tests.cluster.harness.cluster import SYSTEM, Cluster
from tests.cluster.harness.fixtures import Release, Tutorial
from tests.cluster.harness.grants import grants_of
from tests.cluster.harness.objects import api_key, condition, model_from
from tests.cluster.harness.waiting import wait_for

NAMESPACE = "rerank-test-permissions"
ENFORCE = "pod-security.kubernetes.io/enforce"


def test_every_pod_passes_restricted(cluster: Cluster, tutorial: Tutorial) -> None:
    """The API server warns of each running pod that would not be admitted: there is none to warn of."""
    namespaces = sorted({pod["metadata"]["namespace"] for pod in cluster.api.list("pods")})
    assert {SYSTEM, "default", "demo-hub"} <= set(namespaces)
    for namespace in namespaces:
        # Another version than the label has now, or the API server would not look again.
        labels = (f"{ENFORCE}=restricted", f"{ENFORCE}-version=v1.34")
        words = ("label", "namespace", namespace, "--overwrite", "--dry-run=server", *labels)
        done = cluster.shell.attempt("kubectl", *words)
        assert done.returncode == 0, done.stderr
        assert "violate" not in done.stderr, done.stderr


def test_the_namespaces_enforce_restricted(cluster: Cluster, tutorial: Tutorial) -> None:
    """So that every pod of this run was admitted under it."""
    for name in (SYSTEM, "default"):
        found = cluster.api.get("namespaces", name)
        assert found is not None
        assert found["metadata"]["labels"][ENFORCE] == "restricted"


@pytest.fixture(scope="module")
def busy(cluster: Cluster, release: Release, namespace_of_module: str) -> Iterator[None]:
    """What has the operator use its rarer permissions, applied at once, and what comes of each.

    A model of the built-in catalog that wants no replica: its entry is read. One that no node takes, and one
    whose volume cannot be mounted: nodes and Events are looked at. A key that is shown for a while: its
    Secret is removed.
    """
    nowhere = {"nodeSelector": {"rerank-test": "nowhere"}}
    source = {"persistentVolumeClaim": {"claimName": "lost"}}
    size = {"storage": "1Mi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "rerank-test-lost"},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "rerank-test-lost",
            "hostPath": {"path": "/nowhere/rerank-test-lost", "type": "Directory"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "lost", "namespace": namespace_of_module},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "rerank-test-lost",
            "volumeName": "rerank-test-lost",
            "resources": {"requests": size},
        },
    }
    listed = {"catalog": "ms-marco-minilm-l6-v2"}
    cluster.kubectl("delete", "pv", "rerank-test-lost", "--ignore-not-found")
    cluster.kubectl.apply(volume, claim)
    story = cluster.story(namespace_of_module)

    def bound() -> bool:
        found = cluster.api.get("persistentvolumeclaims", "lost", namespace_of_module) or {}
        return bool(found.get("status", {}).get("phase") == "Bound")

    # A pod that the scheduler meets before may wait for minutes to be looked at again.
    wait_for("the claim is bound", bound, seconds=60, story=story)
    cluster.kubectl.apply(
        model_from("lost", namespace_of_module, source),
        model_from("nowhere", namespace_of_module, listed, scheduling=nowhere),
        model_from("listed", namespace_of_module, listed, replicas=0),
        api_key("shown", namespace_of_module, secret={"ttlSeconds": 10}),
    )
    cluster.wait_key_ready("shown", namespace_of_module)

    def merged() -> object:
        return ((cluster.model("listed", namespace_of_module) or {}).get("status") or {}).get("effective")

    def told() -> bool:
        return {
            name: condition(cluster.model(name, namespace_of_module), kind).get("reason")
            for name, kind in (("nowhere", "Scheduled"), ("lost", "Serving"))
        } == {"nowhere": "NoMatchingNode", "lost": "FailedMount"}

    def gone() -> bool:
        return cluster.api.get("secrets", "shown", namespace_of_module) is None

    wait_for("the catalog's entry reached the model", merged, seconds=60, story=story)
    wait_for("both say what they wait for", told, seconds=120, story=story)
    wait_for("the Secret is gone", gone, seconds=60, story=story)
    yield
    cluster.kubectl("delete", "md", "--all", f"--namespace={namespace_of_module}", "--wait=false")
    cluster.kubectl("delete", "pv", "rerank-test-lost", "--wait=false")


@pytest.mark.usefixtures("tutorial", "busy")
@pytest.mark.parametrize("account", ["rerank-operator", "rerank-gateway"])
def test_every_permission_was_used(cluster: Cluster, release: Release, account: str) -> None:
    grants = grants_of(cluster.api, account, SYSTEM)
    assert grants, f"nothing is bound to {account}"
    user = f"system:serviceaccount:{SYSTEM}:{account}"
    events = list(cluster.audit.since(release.audit_start, user=user))
    unused = [grant for grant in grants if not any(grant.used_by(event) for event in events)]
    assert not unused, "\n".join(map(str, unused))


@pytest.mark.parametrize("account", ["rerank-operator", "rerank-gateway"])
def test_nothing_was_asked_in_vain(
    cluster: Cluster, release: Release, tutorial: Tutorial, account: str
) -> None:
    """No request of ours was forbidden."""
    user = f"system:serviceaccount:{SYSTEM}:{account}"
    events = cluster.audit.since(release.audit_start, user=user)
    forbidden = {str(event) for event in events if event.code == 403}
    assert not forbidden


@pytest.mark.parametrize("account", ["rerank-operator", "rerank-gateway"])
def test_no_secret_may_be_read(cluster: Cluster, release: Release, tutorial: Tutorial, account: str) -> None:
    grants = grants_of(cluster.api, account, SYSTEM)
    assert not [
        each for each in grants if each.resource == "secrets" and each.verb in {"get", "list", "watch"}
    ]
    assert not [each for each in grants if "*" in {each.group, each.resource, each.verb}]


@pytest.mark.parametrize(("account", "writes"), [("rerank-operator", True), ("rerank-gateway", False)])
def test_no_secret_was_read(
    cluster: Cluster, release: Release, tutorial: Tutorial, account: str, writes: bool
) -> None:
    """Nor asked for in vain. Both have the backend token as a volume, which the kubelet reads for them."""
    user = f"system:serviceaccount:{SYSTEM}:{account}"
    events = list(cluster.audit.since(release.audit_start, user=user))
    assert events, f"the audit log does not tell of {account}"
    asked = [event for event in events if event.resource == "secrets"]
    assert any(event.verb in WRITES for event in asked) is writes
    assert not {str(event) for event in asked if event.verb not in WRITES}
