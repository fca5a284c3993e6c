"""Models on GPUs: which nodes take them, and what is told where none does. The real scheduler decides."""

from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from tests.apiserver.api import Api, Object, eventually
from tests.apiserver.kubelet import Fleet, node
from tests.apiserver.models import COMMIT, apply_model, because, condition, model_path, settled
from tests.apiserver.operator_process import Operator

GPU = "nvidia.com/gpu"


@pytest.fixture(autouse=True)
def _operator_runs(running: Operator) -> None:
    """Each test here has the operator running when it begins."""


def gpu_node(
    api: Api, namespace: str, name: str, product: str, memory: int, *, count: int = 1, resource: str = GPU
) -> AbstractContextManager[str]:
    """A node as the device plugin and GPU feature discovery show it; `memory` in MiB.

    Its name ends in the namespace: the pods of earlier tests stay on theirs for a while.
    """
    labels = {f"{resource}.product": product, f"{resource}.memory": str(memory)}
    capacity: dict[str, Any] = {resource: str(count)}
    return node(api, f"{name}.{namespace}", labels=labels, **capacity)


def on_gpu(api: Api, namespace: str, name: str = "m", **gpu: Any) -> None:
    scheduling = gpu.pop("scheduling", {})
    resources = {"gpu": gpu, "cpu": "1", "memory": "1Gi"}
    apply_model(api, namespace, name, resources=resources, scheduling=scheduling)


def placed(api: Api, namespace: str, name: str = "m", *, seconds: float = 20) -> str:
    """The node that the one pod of a model got."""

    def look() -> str | None:
        found = api.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"rerank.dev/model={name}")
        bound = [pod["spec"].get("nodeName") for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return bound[0].partition(".")[0] if bound and bound[0] else None

    return eventually(f"{name} has a node", look, seconds=seconds)


CHOICES: dict[str, Object] = {
    "by memory": {"minMemory": "24G"},
    "by product": {"products": ["NVIDIA-H100", "NVIDIA-L4"]},
    "by resource": {"resourceName": "nvidia.com/mig-1g.10gb"},
    "by number": {"count": 2},
}


@pytest.mark.parametrize("gpu", CHOICES.values(), ids=CHOICES)
def test_a_gpu_is_chosen(api: Api, namespace: str, gpu: Object) -> None:
    """An L4 is sold with 24 GB and has 23034 MiB."""
    with ExitStack() as cluster:
        for number in range(3):
            cluster.enter_context(gpu_node(api, namespace, f"t4-{number}", "Tesla-T4", 15360))
        if "resourceName" in gpu:
            cluster.enter_context(
                gpu_node(api, namespace, "right", "A100-MIG-1g.10gb", 9856, resource=gpu["resourceName"])
            )
        else:
            cluster.enter_context(gpu_node(api, namespace, "right", "NVIDIA-L4", 23034, count=2))
        on_gpu(api, namespace, **gpu)
        assert placed(api, namespace) == "right"


def test_slices_are_chosen_by_their_own_memory(api: Api, namespace: str) -> None:
    mig = "nvidia.com/mig-2g.20gb"
    with gpu_node(api, namespace, "slices", "A100-MIG-2g.20gb", 19968, resource=mig):
        on_gpu(api, namespace, resourceName=mig, minMemory="24G")
        words = "the largest (A100-MIG-2g.20gb) has 19.5 GiB, on 1 node"
        because(api, namespace, "Scheduled", "NoMatchingGpu", words)
        on_gpu(api, namespace, resourceName=mig, minMemory="20G")
        assert placed(api, namespace) == "slices"


def test_memory_that_no_gpu_has_is_named_with_the_largest(api: Api, namespace: str) -> None:
    with ExitStack() as cluster:
        cluster.enter_context(node(api, f"plain.{namespace}"))
        for number in range(3):
            cluster.enter_context(gpu_node(api, namespace, f"t4-{number}", "Tesla-T4", 15360))
        on_gpu(api, namespace, minMemory="24G")
        words = (
            "no node has a GPU with 24G (spec.resources.gpu.minMemory);"
            " the largest (Tesla-T4) has 15.0 GiB, on 3 nodes (scheduler: 0/4 nodes are available: "
        )
        message = because(api, namespace, "Scheduled", "NoMatchingGpu", words)
        body = settled(api, namespace, lambda b: b["status"]["message"] == message)
        assert body["status"]["phase"] == "Pending"
        events = eventually(
            "it is told",
            lambda: api.items(
                f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", fieldSelector="reason=NoMatchingGpu"
            ),
        )
        assert [event["type"] for event in events] == ["Warning"]
        cluster.enter_context(gpu_node(api, namespace, "l4", "NVIDIA-L4", 23034))
        assert placed(api, namespace) == "l4"
        settled(api, namespace, lambda b: condition(b, "Scheduled").get("status") == "True")


def test_gpus_that_are_in_use_are_told_and_waited_for(api: Api, namespace: str) -> None:
    with gpu_node(api, namespace, "only", "Tesla-T4", 15360):
        pods = f"/api/v1/namespaces/{namespace}/pods"
        on_gpu(api, namespace, "first")
        assert placed(api, namespace, "first") == "only"
        on_gpu(api, namespace)
        words = f"no {GPU} is free: the only one is in use, on 1 node (scheduler: "
        because(api, namespace, "Scheduled", "GpusInUse", words)
        api.merge(f"{model_path(namespace, 'first')}/scale", {"spec": {"replicas": 0}})

        fleet = Fleet(api, namespace, COMMIT)
        mine = {"labelSelector": "rerank.dev/model=first"}
        eventually("the first one left", lambda: not fleet.end().api.items(pods, **mine))
        assert placed(api, namespace) == "only"


def test_a_taint_in_the_way_is_named(api: Api, namespace: str) -> None:
    with node(api, f"plain.{namespace}"), gpu_node(api, namespace, "tainted", "Tesla-T4", 15360):
        taint = {"key": GPU, "value": "present", "effect": "NoSchedule"}
        api.merge(f"/api/v1/nodes/tainted.{namespace}", {"spec": {"taints": [taint]}})
        on_gpu(api, namespace)
        words = "spec.scheduling.tolerations does not tolerate: nvidia.com/gpu=present:NoSchedule"
        because(api, namespace, "Scheduled", "TaintNotTolerated", words)
        on_gpu(api, namespace, scheduling={"tolerations": [{"key": GPU, "operator": "Exists"}]})
        assert placed(api, namespace) == "tainted"


def test_own_affinity_and_the_gpu_hold_together(api: Api, namespace: str) -> None:
    """Two alternatives of a user's, and in each of them the GPU must be large enough."""
    terms = [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in ("a", "b")
    ]
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    with (
        gpu_node(api, namespace, "small-in-a", "Tesla-T4", 15360),
        gpu_node(api, namespace, "large-in-b", "NVIDIA-L4", 23034),
        gpu_node(api, namespace, "large-in-c", "NVIDIA-L4", 23034),
    ):
        for name, zone in (("small-in-a", "a"), ("large-in-b", "b"), ("large-in-c", "c")):
            api.merge(f"/api/v1/nodes/{name}.{namespace}", {"metadata": {"labels": {"zone": zone}}})
        on_gpu(api, namespace, minMemory="24G", scheduling={"affinity": {"nodeAffinity": rule}})
        assert placed(api, namespace) == "large-in-b"


def test_replicas_are_spread_over_nodes(api: Api, namespace: str) -> None:
    with ExitStack() as cluster:
        for number in range(3):
            cluster.enter_context(gpu_node(api, namespace, f"n-{number}", "Tesla-T4", 15360, count=4))
        resources = {"gpu": {"count": 1}, "cpu": "1", "memory": "1Gi"}
        apply_model(api, namespace, replicas=3, resources=resources)

        def spread() -> set[str] | None:
            found = api.items(f"/api/v1/namespaces/{namespace}/pods")
            bound = [pod["spec"]["nodeName"] for pod in found if pod["spec"].get("nodeName")]
            return set(bound) if len(bound) == 3 else None

        assert len(eventually("all are placed", spread)) == 3


@pytest.mark.parametrize(
    ("scheduling", "words"),
    [
        ({"priorityClassName": "nope"}, "no PriorityClass with name nope was found"),
        ({"runtimeClassName": "nope"}, 'RuntimeClass "nope" not found'),
    ],
)
def test_a_class_that_is_not_there_is_told(api: Api, namespace: str, scheduling: Object, words: str) -> None:
    on_gpu(api, namespace, scheduling=scheduling)
    assert words in because(api, namespace, "Ready", "PodsRefused")


def test_a_quota_of_gpus_is_honoured_and_told(api: Api, namespace: str) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {f"requests.{GPU}": "0"}}}
    api.create(f"/api/v1/namespaces/{namespace}/resourcequotas", quota)
    eventually(
        "the quota counts",
        lambda: api.get(f"/api/v1/namespaces/{namespace}/resourcequotas/q").get("status", {}).get("hard"),
    )
    on_gpu(api, namespace)
    message = because(api, namespace, "Ready", "PodsRefused")
    assert "exceeded quota: q" in message
    assert f"requests.{GPU}=1" in message


def test_a_gpu_that_may_be_too_small_is_told_before_it_fails(api: Api, namespace: str) -> None:
    """An earlier replica told what the model takes; its next one got a smaller GPU."""
    with gpu_node(api, namespace, "small", "Tesla-T4", 15360):
        on_gpu(api, namespace)
        assert placed(api, namespace) == "small"
        known = {"repo": "demo/word-overlap", "memoryBytes": 20 * 2**30}
        api.merge(f"{model_path(namespace)}/status", {"status": {"model": known}})
        message = because(api, namespace, "Scheduled", "GpuMayBeTooSmall")
        assert message == (
            f"every replica has a node, but the GPU of small.{namespace} has 15.0 GiB, and the model takes"
            " about 20.0 GiB: it may not fit; spec.resources.gpu.minMemory: 22Gi asks for a larger one"
        )


def test_a_volume_that_cannot_be_mounted_is_told(api: Api, namespace: str) -> None:
    """The kubelet tells of it in an Event of the pod alone."""
    with gpu_node(api, namespace, "n-mount", "Tesla-T4", 15360):
        on_gpu(api, namespace)
        placed(api, namespace)
        (pod,) = api.items(f"/api/v1/namespaces/{namespace}/pods")
        note = 'MountVolume.SetUp failed for volume "models" : hostPath type check failed'
        api.create(
            f"/api/v1/namespaces/{namespace}/events",
            {
                "metadata": {"name": "complaint", "namespace": namespace},
                "involvedObject": {
                    "kind": "Pod",
                    "namespace": namespace,
                    "name": pod["metadata"]["name"],
                    "uid": pod["metadata"]["uid"],
                },
                "type": "Warning",
                "reason": "FailedMount",
                "message": note,
                "source": {"component": "kubelet", "host": "n-mount"},
                "firstTimestamp": "2026-01-01T00:00:00Z",
                "lastTimestamp": "2026-01-01T00:00:00Z",
                "count": 1,
            },
        )
        body = settled(
            api, namespace, lambda b: condition(b, "Downloaded").get("reason") == "FailedMount", seconds=45
        )
        assert body["status"]["message"] == f"the node n-mount.{namespace} cannot prepare a replica: {note}"
