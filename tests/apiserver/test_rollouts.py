"""How a change reaches replicas that run, by the real Deployment controller and scheduler."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.apiserver.api import Api, Object, eventually
from tests.apiserver.kubelet import Fleet, is_ready, node
from tests.apiserver.models import COMMIT, apply_model, because, child_path, condition, model_path, settled
from tests.apiserver.operator_process import Operator

GPU = "nvidia.com/gpu"
SURGE = {"maxSurge": 1, "maxUnavailable": 0}
ONE_BY_ONE = {"maxSurge": 0, "maxUnavailable": 1}


@pytest.fixture(autouse=True)
def _operator_runs(running: Operator) -> None:
    """Each test here has the operator running when it begins."""


@pytest.fixture
def fleet(api: Api, namespace: str) -> Iterator[Fleet]:
    fleet = Fleet(api, namespace, COMMIT)
    yield fleet
    fleet.close()


def apply(api: Api, namespace: str, *, memory: str = "1Gi", **spec: Any) -> None:
    """A model on one GPU a replica; another `memory` is another revision."""
    scheduling = spec.pop("scheduling", {})
    resources = {"gpu": {"count": 1}, "cpu": "1", "memory": memory}
    apply_model(api, namespace, resources=resources, scheduling=scheduling, **spec)


def gpus(
    api: Api, namespace: str, name: str, count: int, *, labels: dict[str, str] | None = None
) -> AbstractContextManager[str]:
    """A node with so many GPUs, whose name no other test's pods know."""
    capacity: dict[str, Any] = {GPU: str(count)}
    return node(api, f"{name}.{namespace}", labels=labels, **capacity)


def memory_of(pod: Object) -> str:
    memory = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert isinstance(memory, str)
    return memory


def rolled_out(fleet: Fleet, *, memory: str, replicas: int = 1, seconds: float = 60) -> None:
    """Play the kubelet until all replicas are of one revision and ready."""

    def done() -> bool:
        pods = fleet.step().pods()
        return len(pods) == replicas and all(is_ready(pod) and memory_of(pod) == memory for pod in pods)

    eventually(f"{replicas} replicas with {memory}", done, seconds=seconds)
    settled(fleet.api, fleet.namespace, lambda b: b["status"]["phase"] == "Ready")


def strategy(fleet: Fleet) -> Any:
    return fleet.api.get(child_path(fleet.namespace, "deployments"))["spec"]["strategy"].get("rollingUpdate")


def reason(fleet: Fleet) -> str:
    """Why the model is not Ready, after the kubelet had its turn."""
    body = fleet.step().api.get(model_path(fleet.namespace))
    return str(condition(body, "Ready").get("reason"))


def begin(fleet: Fleet, **spec: Any) -> None:
    """The first revision, serving."""
    apply(fleet.api, fleet.namespace, **spec)
    rolled_out(fleet, memory="1Gi", replicas=spec.get("replicas", 1))
    fleet.fewest_ready = None


def test_with_a_spare_gpu_the_old_one_serves_until_the_new_one_does(
    api: Api, namespace: str, fleet: Fleet
) -> None:
    with gpus(api, namespace, "two", 2):
        begin(fleet)
        apply(api, namespace, memory="2Gi")
        rolled_out(fleet, memory="2Gi")
        assert fleet.fewest_ready == 1


def test_with_one_gpu_the_old_one_makes_way(api: Api, namespace: str, fleet: Fleet) -> None:
    with gpus(api, namespace, "one", 1):
        begin(fleet)
        apply(api, namespace, memory="2Gi")
        because(api, namespace, "Scheduled", "GpusInUse", "the only one is in use")
        rolled_out(fleet, memory="2Gi")
        assert fleet.fewest_ready == 0
        eventually("the next one looks for room again", lambda: strategy(fleet) == SURGE)


def test_with_as_many_gpus_as_replicas_one_is_missing_at_a_time(
    api: Api, namespace: str, fleet: Fleet
) -> None:
    with gpus(api, namespace, "three", 3):
        begin(fleet, replicas=3)
        apply(api, namespace, memory="2Gi", replicas=3)
        rolled_out(fleet, memory="2Gi", replicas=3)
        assert fleet.fewest_ready == 2


def test_where_the_quota_is_used_up_the_old_one_makes_way(api: Api, namespace: str, fleet: Fleet) -> None:
    """There is a spare GPU, which this namespace may not have."""
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    api.create(quotas, {"metadata": {"name": "q"}, "spec": {"hard": {f"requests.{GPU}": "1"}}})
    eventually("the quota counts", lambda: api.get(f"{quotas}/q").get("status", {}).get("hard"))
    with gpus(api, namespace, "two", 2):
        begin(fleet)
        apply(api, namespace, memory="900Mi")
        because(api, namespace, "Progressing", "PodsRefused", "exceeded quota: q")
        # The ReplicaSet controller tries again at growing intervals.
        rolled_out(fleet, memory="900Mi", seconds=120)
        assert fleet.fewest_ready == 0


def test_where_the_quota_may_not_do_the_old_one_stays(api: Api, namespace: str, fleet: Fleet) -> None:
    """It asks for more memory, which another quota refuses: the API server names the first alone."""
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    for name, hard in (("gpus", {f"requests.{GPU}": "1"}), ("memory", {"requests.memory": "1Gi"})):
        api.create(quotas, {"metadata": {"name": name}, "spec": {"hard": hard}})
    eventually("they count", lambda: all("hard" in quota.get("status", {}) for quota in api.items(quotas)))
    with gpus(api, namespace, "two", 2):
        begin(fleet)
        apply(api, namespace, memory="2Gi")
        because(api, namespace, "Progressing", "PodsRefused", "exceeded quota")
        eventually("it is refused for longer than patience lasts", lambda: _refused(fleet, seconds=16))
        assert strategy(fleet) == SURGE
        assert api.get(model_path(namespace))["status"]["readyReplicas"] == 1


def test_where_the_new_one_would_not_fit_the_old_one_stays(api: Api, namespace: str, fleet: Fleet) -> None:
    """It may not go where the old one is: ending that would take away what serves, for nothing."""
    with gpus(api, namespace, "one", 1), gpus(api, namespace, "taken", 1, labels={"disk": "ssd"}):
        begin(fleet, scheduling={"nodeSelector": {"kubernetes.io/hostname": f"one.{namespace}"}})
        apply_model(api, namespace, "other", resources={"gpu": {"count": 1}, "cpu": "1", "memory": "1Gi"})
        eventually("the other one takes the second GPU", lambda: len(fleet.step().pods()) == 2)
        apply(api, namespace, memory="2Gi", scheduling={"nodeSelector": {"disk": "ssd"}})
        because(api, namespace, "Scheduled", "GpusInUse")
        eventually("it waits for longer than patience lasts", lambda: _waited(fleet, seconds=16), seconds=40)
        assert strategy(fleet) == SURGE
        assert api.get(model_path(namespace))["status"]["readyReplicas"] == 1


def _waited(fleet: Fleet, *, seconds: int) -> bool:
    """Whether the Event that a pod finds no node is that old, by the API server's clock."""
    (waiting,) = [
        c
        for pod in fleet.step().pods()
        for c in pod["status"].get("conditions", ())
        if c["type"] == "PodScheduled" and c["status"] == "False"
    ]
    return (
        datetime.now(UTC) - datetime.fromisoformat(waiting["lastTransitionTime"])
    ).total_seconds() > seconds


def _refused(fleet: Fleet, *, seconds: int) -> bool:
    """Whether the Deployment's pods have been refused for so long."""
    body = fleet.step().api.get(child_path(fleet.namespace, "deployments"))
    (since,) = [
        c["lastTransitionTime"] for c in body["status"]["conditions"] if c["type"] == "ReplicaFailure"
    ]
    return (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds() > seconds


def test_a_revision_that_ranks_wrong_stops_and_the_old_one_serves_on(
    api: Api, namespace: str, fleet: Fleet
) -> None:
    with gpus(api, namespace, "three", 3):
        begin(fleet, replicas=2)
        fleet.healthy = lambda pod: memory_of(pod) != "2Gi"
        apply(api, namespace, memory="2Gi", replicas=2)
        eventually("the new one fails", lambda: reason(fleet) == "ScoresInverted", seconds=40)
        body = api.get(model_path(namespace))
        assert condition(body, "Progressing")["status"] == "False"
        assert body["status"]["phase"] == "Degraded"
        assert body["status"]["ready"] == "2/2"
        apply(api, namespace, replicas=2)
        rolled_out(fleet, memory="1Gi", replicas=2)
        assert fleet.fewest_ready == 2


def test_on_one_gpu_the_earlier_spec_brings_back_what_failed(api: Api, namespace: str, fleet: Fleet) -> None:
    with gpus(api, namespace, "one", 1):
        begin(fleet)
        fleet.healthy = lambda pod: memory_of(pod) != "2Gi"
        apply(api, namespace, memory="2Gi")

        eventually("the new one fails", lambda: reason(fleet) == "ScoresInverted", seconds=40)
        apply(api, namespace)
        rolled_out(fleet, memory="1Gi")


def test_recreate_never_lets_two_revisions_serve_together(api: Api, namespace: str, fleet: Fleet) -> None:
    with gpus(api, namespace, "four", 4):
        begin(fleet, replicas=2)
        apply(api, namespace, memory="2Gi", replicas=2, rollout={"strategy": "Recreate"})

        def together() -> set[str]:
            return {memory_of(pod) for pod in fleet.step().pods() if is_ready(pod)}

        eventually("the new ones serve", lambda: _never_both(together()), seconds=40)
        rolled_out(fleet, memory="2Gi", replicas=2)
        apply(api, namespace, memory="2Gi", replicas=2)
        eventually("and back", lambda: strategy(fleet) == SURGE)


def _never_both(serving: set[str]) -> bool:
    assert len(serving) < 2
    return serving == {"2Gi"}


def test_surge_waits_for_room(api: Api, namespace: str, fleet: Fleet) -> None:
    with gpus(api, namespace, "one", 1):
        begin(fleet, rollout={"strategy": "Surge", "progressDeadlineSeconds": 15})
        apply(api, namespace, memory="2Gi", rollout={"strategy": "Surge", "progressDeadlineSeconds": 15})
        because(api, namespace, "Progressing", "GpusInUse")
        eventually("it still waits", lambda: _waited(fleet, seconds=16), seconds=40)
        assert fleet.fewest_ready == 1
        assert api.get(model_path(namespace))["status"]["readyReplicas"] == 1
        with gpus(api, namespace, "another", 1):
            rolled_out(fleet, memory="2Gi")
            assert fleet.fewest_ready == 1


def test_a_rollout_past_its_deadline_is_told(api: Api, namespace: str) -> None:
    with gpus(api, namespace, "slow", 1):
        apply(api, namespace, rollout={"progressDeadlineSeconds": 2})
        message = because(api, namespace, "Progressing", "ProgressDeadlineExceeded")
        assert message.endswith("none became ready within 2 s (spec.rollout.progressDeadlineSeconds)")


def test_what_needs_no_restart_causes_none(api: Api, namespace: str, fleet: Fleet) -> None:
    with gpus(api, namespace, "two", 2):
        begin(fleet)
        before = [pod["metadata"]["uid"] for pod in fleet.pods()]
        apply(
            api,
            namespace,
            aliases=["other-name"],
            access={"namespaces": ["another-team"]},
            scoring={"cacheScores": True},
            autoscaling={"maxReplicas": 2},
            rollout={"strategy": "Surge", "progressDeadlineSeconds": 60},
        )
        api.merge(model_path(namespace), {"metadata": {"labels": {"team": "a"}, "annotations": {"x": "y"}}})
        body = api.get(model_path(namespace))
        settled(
            api,
            namespace,
            lambda b: b["status"]["observedGeneration"] == body["metadata"]["generation"],
        )

        def carried_out() -> Object | None:
            """The Deployment, once its controller has seen the change."""
            found = api.get(child_path(namespace, "deployments"))
            seen = found["status"].get("observedGeneration") == found["metadata"]["generation"]
            return found if seen and found["spec"]["progressDeadlineSeconds"] == 60 else None

        replicas = eventually("the change reached the replicas' Deployment", carried_out)
        assert api.find(child_path(namespace, "poddisruptionbudgets")), "it may have two replicas now"
        assert replicas["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
        assert [pod["metadata"]["uid"] for pod in fleet.step().pods()] == before


def test_a_drain_takes_one_replica_at_a_time_and_waits_for_no_single_one(
    api: Api, namespace: str, fleet: Fleet
) -> None:
    with gpus(api, namespace, "two", 2):
        begin(fleet)
        (pod,) = fleet.pods()
        evict(api, namespace, pod)
        eventually("it goes", lambda: pod["metadata"]["uid"] not in _uids(fleet))
        rolled_out(fleet, memory="1Gi")

        apply(api, namespace, replicas=2)
        rolled_out(fleet, memory="1Gi", replicas=2)
        budget = child_path(namespace, "poddisruptionbudgets")
        eventually("the budget counts", lambda: api.get(budget)["status"].get("disruptionsAllowed") == 1)
        first, second = fleet.pods()
        evict(api, namespace, first)
        with pytest.raises(Exception, match="disruption budget"):
            evict(api, namespace, second)


def test_there_is_a_budget_while_there_can_be_several_replicas(
    api: Api, namespace: str, fleet: Fleet
) -> None:
    budget = child_path(namespace, "poddisruptionbudgets")
    with gpus(api, namespace, "two", 2):
        begin(fleet, replicas=2)
        first = api.get(budget)
        scale(api, namespace, 1)
        eventually("the budget goes", lambda: api.find(budget) is None)
        rolled_out(fleet, memory="1Gi")
        (pod,) = fleet.pods()
        evict(api, namespace, pod)
        eventually("the one that is left goes", lambda: pod["metadata"]["uid"] not in _uids(fleet))
        scale(api, namespace, 2)
        second = eventually("the budget is back", lambda: api.find(budget))
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert second["spec"] == first["spec"]
        rolled_out(fleet, memory="1Gi", replicas=2)


def scale(api: Api, namespace: str, replicas: int) -> None:
    """As kubectl, a HorizontalPodAutoscaler and KEDA do."""
    api.merge(f"{model_path(namespace)}/scale", {"spec": {"replicas": replicas}})


def _uids(fleet: Fleet) -> list[str]:
    return [pod["metadata"]["uid"] for pod in fleet.step().pods()]


def evict(api: Api, namespace: str, pod: Object) -> None:
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    api.create(f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)
