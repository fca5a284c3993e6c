"""The operator's children: put back as they were, gone with their owner, never written in vain."""

import time

import pytest

from rerank_api import names
from tests.cluster.harness.audit import WRITES
from tests.cluster.harness.cluster import SYSTEM, Cluster
from tests.cluster.harness.fixtures import Tutorial
from tests.cluster.harness.objects import REFUSED, Object, api_key, model, pod_is_ready
from tests.cluster.harness.waiting import wait_for

NAMESPACE = "rerank-test-children"
OPERATOR = f"system:serviceaccount:{SYSTEM}:rerank-operator"
CHILD = names.child_name("idle")
HEAL_SECONDS = 30.0
RESTARTS = 10


@pytest.fixture(scope="module")
def idle(cluster: Cluster, release: object, namespace_of_module: str) -> None:
    """A model with no replicas: children without the cost of an engine."""
    cluster.kubectl.apply(model("idle", namespace_of_module, "demo/word-overlap", replicas=0))
    for resource in ("deployments", "services"):
        wait_for(
            f"{resource}/{CHILD} is there",
            lambda resource=resource: child(cluster, resource),  # type: ignore[misc]
            seconds=HEAL_SECONDS,
            story=cluster.story(NAMESPACE),
        )


def child(cluster: Cluster, resource: str) -> Object | None:
    """One child of the idle model."""
    return cluster.api.get(resource, CHILD, NAMESPACE)


@pytest.mark.parametrize("resource", ["deployments", "services"])
def test_a_deleted_child_is_made_again(cluster: Cluster, idle: None, resource: str) -> None:
    before = child(cluster, resource)
    assert before is not None
    cluster.kubectl.delete(resource, CHILD, NAMESPACE)

    def remade() -> Object | None:
        found = child(cluster, resource)
        return found if found and found["metadata"]["uid"] != before["metadata"]["uid"] else None

    what = f"{resource}/{CHILD} is made again"
    after = wait_for(what, remade, seconds=HEAL_SECONDS, story=cluster.story(NAMESPACE))
    assert without_server_fields(after) == without_server_fields(before)


def without_server_fields(found: Object) -> Object:
    """What the operator decides of an object."""
    metadata = {key: found["metadata"].get(key) for key in ("name", "labels", "ownerReferences")}
    spec = {key: value for key, value in found["spec"].items() if not key.startswith("clusterIP")}
    return {"metadata": metadata, "spec": spec}


def test_an_edited_child_is_put_right_and_others_marks_stay(cluster: Cluster, idle: None) -> None:
    """What the operator wrote comes back; labels and annotations of somebody else's are left alone."""
    marks = {"labels": {"team": "search"}, "annotations": {"audit.example.com/seen": "yes"}}
    edits: dict[str, Object] = {
        "deployments": {
            "metadata": marks,
            "spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}, "revisionHistoryLimit": 9},
        },
        "services": {"metadata": marks, "spec": {"selector": {names.MODEL_LABEL: "another"}}},
    }
    before = {resource: child(cluster, resource) for resource in edits}
    for resource, edit in edits.items():
        cluster.kubectl.patch(resource, CHILD, NAMESPACE, edit)
    for resource in edits:

        def healed(resource: str = resource) -> bool:
            found, old = child(cluster, resource), before[resource]
            return bool(found and old and found["spec"] == old["spec"])

        what = f"{resource}/{CHILD} is put right"
        wait_for(what, healed, seconds=HEAL_SECONDS, story=cluster.story(NAMESPACE))

    # A change of the operator's own leaves the marks alone, too.
    generation = child(cluster, "deployments")["metadata"]["generation"]  # type: ignore[index]
    cluster.kubectl.patch("md", "idle", NAMESPACE, {"spec": {"resources": {"memory": "4Gi"}}})
    wait_for(
        "the change arrives",
        lambda: child(cluster, "deployments")["metadata"]["generation"] > generation,  # type: ignore[index]
        seconds=HEAL_SECONDS,
        story=cluster.story(NAMESPACE),
    )
    for resource in edits:
        found = child(cluster, resource)
        assert found is not None
        assert found["metadata"]["labels"]["team"] == "search"
        assert found["metadata"]["labels"][names.MANAGED_BY_LABEL] == names.MANAGED_BY
        assert found["metadata"]["annotations"]["audit.example.com/seen"] == "yes"


def test_somebody_elses_object_is_left_alone(cluster: Cluster, idle: None) -> None:
    """A Service with the name of a child that is not ours: the model says so, the Service stays."""
    taken = names.child_name("taken")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": taken, "namespace": NAMESPACE},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 1}]},
    }
    cluster.kubectl.apply(service)
    before = cluster.api.get("services", taken, NAMESPACE)
    cluster.kubectl.apply(model("taken", NAMESPACE, "demo/word-overlap", replicas=0))
    cluster.wait_reason("taken", NAMESPACE, "NameTaken", seconds=HEAL_SECONDS)
    assert cluster.api.get("services", taken, NAMESPACE) == before
    cluster.kubectl.delete("service", taken, NAMESPACE)
    wait_for(
        "the name is free and the operator takes it",
        lambda: (
            (cluster.api.get("services", taken, NAMESPACE) or {}).get("metadata", {}).get("ownerReferences")
        ),
        seconds=90,
        story=cluster.story(NAMESPACE),
    )
    cluster.kubectl.delete("md", "taken", NAMESPACE)


def test_deleted_while_the_operator_is_down(cluster: Cluster, idle: None) -> None:
    """Garbage collection takes every child, running pods included; no finalizer waits for the operator."""
    cluster.kubectl.apply(model("orphan", NAMESPACE, "demo/does-not-exist", resources=REFUSED))
    cluster.wait_reason("orphan", NAMESPACE, "RepositoryNotFound", seconds=60)
    cluster.kubectl("scale", "deployment/rerank-operator", f"--namespace={SYSTEM}", "--replicas=0")
    try:
        wait_for("the operator is down", lambda: not operator_pods(cluster), seconds=60)
        assert cluster.pods_of("orphan", NAMESPACE)
        cluster.kubectl.delete("md", "orphan", NAMESPACE)

        def left() -> list[str]:
            labels = f"{names.MODEL_LABEL}=orphan"
            kinds = ("deployments", "replicasets", "pods", "services", "endpointslices", "configmaps")
            return [
                f"{resource}/{found['metadata']['name']}"
                for resource in kinds
                for found in cluster.api.list(resource, NAMESPACE, labels=labels)
            ]

        wait_for("nothing is left of it", lambda: not left(), seconds=90, story=cluster.story(NAMESPACE))
        assert cluster.model("orphan", NAMESPACE) is None
    finally:
        cluster.kubectl("scale", "deployment/rerank-operator", f"--namespace={SYSTEM}", "--replicas=1")
        wait_operator(cluster, but=set())


def operator_pods(cluster: Cluster) -> list[Object]:
    """The operator's pods, those on their way out included."""
    return cluster.api.list("pods", SYSTEM, labels="app.kubernetes.io/name=rerank-operator")


def wait_operator(cluster: Cluster, *, but: set[str]) -> set[str]:
    """Wait until an operator is ready that is none of those, and they are gone. Return its pod's name."""

    def ready() -> set[str] | None:
        pods = operator_pods(cluster)
        found = {pod["metadata"]["name"] for pod in pods}
        return found if len(pods) == 1 and not found & but and pod_is_ready(pods[0]) else None

    story = cluster.story(SYSTEM)
    return wait_for("the operator is ready", ready, seconds=90, every=0.2, story=story)


def test_restarts_write_nothing(cluster: Cluster, tutorial: Tutorial, idle: None) -> None:
    """Ten operators one after another find everything as it should be. By the API server's own record."""
    cluster.wait_ready("minilm", "default")
    position = cluster.audit.position()
    pods = wait_operator(cluster, but=set())
    for number in range(RESTARTS):
        [name] = pods
        cluster.kubectl.delete("pod", name, SYSTEM)
        pods = wait_operator(cluster, but=pods)
        # It works: it has read everything and come to the end of its queue before it is stopped again.
        cluster.kubectl.apply(api_key(f"marker-{number}", NAMESPACE))
        cluster.wait_key_ready(f"marker-{number}", NAMESPACE)
    settled = cluster.audit.position()
    deadline = time.monotonic() + 30
    while not leased_since(cluster, settled):  # a leader renews every few seconds, so it is still at work
        assert time.monotonic() < deadline, "the operator does not renew its Lease"
        time.sleep(0.5)
    written = [
        event
        for event in cluster.audit.since(position, user=OPERATOR)
        if event.verb in WRITES and event.resource != "leases" and not event.name.startswith("marker-")
    ]
    events_of_markers = [
        event for event in written if event.resource == "events" and event.namespace == NAMESPACE
    ]
    unwanted = [event for event in written if event not in events_of_markers]
    assert not unwanted, "\n".join(map(str, unwanted))
    assert len(events_of_markers) <= RESTARTS, "\n".join(map(str, events_of_markers))


def leased_since(cluster: Cluster, position: int) -> bool:
    """Return whether the operator has renewed its Lease after that position of the log."""
    return any(event.resource == "leases" for event in cluster.audit.since(position, user=OPERATOR))
