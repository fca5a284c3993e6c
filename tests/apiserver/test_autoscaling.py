"""From what a gateway tells to the replicas of a Deployment, past a real API server and its controllers."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.apiserver.api import Api, Object, eventually
from tests.apiserver.gateway_port import CALM, GatewayPort, asked_by
from tests.apiserver.kubelet import Fleet, is_ready, node
from tests.apiserver.models import COMMIT, apply_model, child_path, condition, model_path, settled
from tests.apiserver.operator_process import AuditLog, Operator
from tests.apiserver.test_survival import LEASE


@pytest.fixture
def port(operator: Operator, namespace: str) -> Iterator[GatewayPort]:
    """A gateway, which the operator asks; the others' tests start it anew without."""
    port = GatewayPort()
    load(port, namespace)
    with asked_by(operator, port):
        yield port


def load(port: GatewayPort, namespace: str, **work: float) -> None:
    """What the gateway tells of the model from now on."""
    port.loads[namespace, "m"] = {**CALM, **work}


def replicas(api: Api, namespace: str) -> int:
    found = api.find(child_path(namespace, "deployments"))
    return -1 if found is None else int(found["spec"]["replicas"])


def comes_to(api: Api, namespace: str, number: int) -> None:
    eventually(f"{number} replicas", lambda: replicas(api, namespace) == number, seconds=30)


def notes(api: Api, namespace: str, reason: str) -> list[str]:
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    return [event["note"] for event in api.items(path, fieldSelector=f"reason={reason}")]


def managers(body: Object, field: str) -> set[str]:
    return {
        entry["manager"]
        for entry in body["metadata"]["managedFields"]
        if entry.get("subresource") == "status" and f"f:{field}" in entry["fieldsV1"].get("f:status", {})
    }


def test_a_queue_makes_replicas_and_the_scale_subresource_is_not_fought_over(
    api: Api, namespace: str, port: GatewayPort, operator: Operator, audit: AuditLog
) -> None:
    apply_model(api, namespace, autoscaling={"maxReplicas": 3})
    settled(api, namespace, lambda b: b.get("status", {}).get("autoscaling", {}).get("reason") == "Started")
    comes_to(api, namespace, 1)
    load(port, namespace, queuedTokens=3000, runningTokens=200, idleSeconds=0)
    comes_to(api, namespace, 3)
    why = "3.2 s of work queued for 1 replica; the target is 1 s"
    body = settled(api, namespace, lambda b: b["status"]["ready"] == "0/3")
    assert body["status"]["autoscaling"]["message"] == why
    assert managers(body, "autoscaling") == {"rerank-operator/autoscaling"}
    assert managers(body, "conditions") == {"rerank-operator"}
    assert eventually("the event", lambda: notes(api, namespace, "ScaledUp")) == [
        f"replicas from 1 to 3: {why}"
    ]

    scale = f"{model_path(namespace)}/scale"
    api.merge(scale, {"spec": {"replicas": 2}})
    (note,) = eventually("it is told", lambda: notes(api, namespace, "ReplicasNotHeeded"))
    assert "spec.replicas was set to 2" in note
    assert (api.get(scale)["spec"]["replicas"], replicas(api, namespace)) == (2, 3)
    eventually("the pods are counted", lambda: api.get(scale)["status"]["replicas"] == 3)

    port.asked_again("/load")
    since = audit.size()
    for _ in range(3):
        port.asked_again("/load")
    assert [write for write in audit.writes(since=since) if f"/namespaces/{namespace}/" in write] == []

    load(port, namespace)
    operator.kill()
    api.delete(LEASE)  # waiting for it to run out is another test's subject
    operator.start()
    port.asked_again("/load")
    assert replicas(api, namespace) == 3  # the number outlives the leader, whatever the load is now

    apply_model(api, namespace)
    comes_to(api, namespace, 2)
    body = settled(api, namespace, lambda b: "autoscaling" not in b["status"])
    assert body["status"]["phase"]


def test_to_zero_when_nobody_asks_and_from_zero_when_a_request_waits(
    api: Api, namespace: str, port: GatewayPort
) -> None:
    def serving() -> bool:
        return any(is_ready(pod) for pod in fleet.step().pods())

    with node(api, f"node.{namespace}"), closing(Fleet(api, namespace, COMMIT)) as fleet:
        apply_model(api, namespace, autoscaling={"minReplicas": 0, "maxReplicas": 2, "idleSecondsToZero": 2})
        eventually("the first replica serves", serving, seconds=40)
        body = settled(api, namespace, lambda b: b["status"]["phase"] == "Idle", seconds=30)
        comes_to(api, namespace, 0)
        assert body["status"]["message"] == "scaled to zero; the next request starts it"
        assert condition(body, "Ready")["message"].startswith("spec.autoscaling scaled it to zero")
        assert notes(api, namespace, "ScaledDown") == ["replicas from 1 to 0: no request for 2 s"]
        fleet.end()
        load(port, namespace, heldRequests=1, idleSeconds=0)
        comes_to(api, namespace, 1)
        eventually("a replica serves again", serving, seconds=40)
        assert notes(api, namespace, "ScaledUp") == ["replicas from 0 to 1: a request came"]
