"""Why no node takes a replica, told from the nodes."""

from decimal import Decimal
from typing import Any

import pytest

from rerank_api.effective import effective
from rerank_operator import nodes
from rerank_operator.capacity import Wishes, explain, too_small
from rerank_operator.nodes import Node, Taint
from rerank_operator.pods import Claim, Pod
from tests.rerank_operator.samples import model, pod

GPU = "nvidia.com/gpu"
WORDS = f"0/3 nodes are available: 3 Insufficient {GPU}."
ROOM = {"cpu": Decimal(16), "memory": Decimal(64 * 2**30)}


def node(name: str, product: str = "", memory: int = 0, *, gpus: int = 1, **changes: Any) -> Node:
    """A node, with `gpus` of a product of so many MiB."""
    labels = {f"{GPU}.product": product, f"{GPU}.memory": str(memory)} if product else {}
    room = {**ROOM, **({GPU: Decimal(gpus)} if gpus else {}), **changes.pop("allocatable", {})}
    return Node(name, {**labels, **changes.pop("labels", {})}, room, changes.pop("taints", ()))


T4 = [node(f"t4-{number}", "Tesla-T4", 15360) for number in range(3)]
L4 = node("l4", "NVIDIA-L4", 23034, gpus=2)
CPU = node("cpu", gpus=0)


def wishes(scheduling: dict[str, Any] | None = None, **gpu: Any) -> Wishes:
    of = model(resources={"gpu": gpu}, scheduling=scheduling or {})
    return Wishes(effective(of.spec), of.spec.scheduling)


def waiting(words: str = WORDS, *, tolerations: Any = (), **requests: int) -> Pod:
    claim = Claim({name: Decimal(amount) for name, amount in requests.items()}, tolerations)
    return pod(scheduled=False, unschedulable=words, claim=claim)


def told(asked: Wishes, found: list[Node], of: Pod | None = None) -> tuple[str, str]:
    """Reason and message, without the scheduler's words, which stand behind every message."""
    of = of or waiting()
    cause = explain(of, asked, found)
    assert cause is not None
    assert cause.stage == "Scheduled"
    message, scheduler, rest = cause.message.partition(" (scheduler: ")
    assert scheduler + rest == f" (scheduler: {of.unschedulable})"
    return cause.reason, message


def test_replicas_on_several_gpus_count_nodes_with_so_many() -> None:
    """Two GPUs of two nodes are no two GPUs."""
    small = "no node has 2 nvidia.com/gpu (spec.resources.gpu.count); the one with most has 1"
    assert told(wishes(count=2), T4) == ("NoMatchingGpu", small)
    used = "no node has 2 nvidia.com/gpu free: too many of 2 are in use, on 1 node"
    assert told(wishes(count=2), [*T4, L4]) == ("GpusInUse", used)
    mixed = waiting(f"0/4 nodes are available: 1 Insufficient cpu, 3 Insufficient {GPU}.", cpu=8)
    full = "no node has 2 free nvidia.com/gpu and 8 of cpu left (spec.resources.cpu)"
    assert told(wishes(count=2), [*T4, L4], mixed) == ("NodesFull", full)


NO_DISCOVERY = "is NVIDIA GPU feature discovery installed?"
NO_MEMORY = "no node has a GPU with 24G (spec.resources.gpu.minMemory)"
SLICED = node("mig", gpus=0, allocatable={"nvidia.com/mig-1g.10gb": Decimal(7)})

NO_GPU: dict[str, tuple[Wishes, list[Node], str]] = {
    "no GPUs at all": (
        wishes(),
        [CPU],
        (
            "no node offers nvidia.com/gpu: is the device plugin installed?"
            " spec.resources.gpu.count: 0 serves on the CPU"
        ),
    ),
    "slices only": (
        wishes(),
        [SLICED],
        "no node offers nvidia.com/gpu; there is nvidia.com/mig-1g.10gb (spec.resources.gpu.resourceName)",
    ),
    "too little memory": (
        wishes(minMemory="24G"),
        [CPU, *T4],
        f"{NO_MEMORY}; the largest (Tesla-T4) has 15.0 GiB, on 3 nodes",
    ),
    "too little memory in those that were asked for": (
        wishes(minMemory="24G", products=["Tesla-T4"]),
        [L4, *T4],
        (
            "no node has a GPU of spec.resources.gpu.products with 24G (spec.resources.gpu.minMemory);"
            " the largest (Tesla-T4) has 15.0 GiB, on 3 nodes"
        ),
    ),
    "too little memory where there are as many": (
        wishes(minMemory="40G", count=2),
        [L4, node("a100", "NVIDIA-A100", 81920)],
        (
            "no node has 2 GPUs with 40G (spec.resources.gpu.minMemory);"
            " the largest (NVIDIA-L4) has 22.5 GiB, on 1 node"
        ),
    ),
    "nobody tells the memory": (
        wishes(minMemory="24G"),
        [node("plain")],
        f"no node tells its GPU's memory, in the label nvidia.com/gpu.memory: {NO_DISCOVERY}",
    ),
    "other products": (
        wishes(products=["NVIDIA-H100"]),
        [L4, *T4],
        "no node has a GPU of spec.resources.gpu.products; there is NVIDIA-L4 on 1 node, Tesla-T4 on 3 nodes",
    ),
    "nobody tells the product": (
        wishes(products=["NVIDIA-H100"]),
        [node("plain")],
        (
            "no node has a GPU of spec.resources.gpu.products;"
            f" no node has the label nvidia.com/gpu.product: {NO_DISCOVERY}"
        ),
    ),
}


@pytest.mark.parametrize(("asked", "found", "message"), NO_GPU.values(), ids=NO_GPU)
def test_a_gpu_that_no_node_has_is_named(asked: Wishes, found: list[Node], message: str) -> None:
    assert told(asked, found) == ("NoMatchingGpu", message)


def test_nodes_that_are_not_as_asked_for() -> None:
    assert told(wishes(), []) == ("NoMatchingNode", "there is no node")
    on_ssd = wishes({"nodeSelector": {"disk": "ssd"}})
    message = "no node is as spec.scheduling.nodeSelector wants it"
    assert told(on_ssd, [L4]) == ("NoMatchingNode", message)


def test_gpus_that_are_all_in_use_are_counted() -> None:
    two = ("GpusInUse", "no nvidia.com/gpu is free: all 2 are in use, on 1 node")
    assert told(wishes(), [L4, CPU]) == two
    assert told(wishes(minMemory="24G"), [L4, *T4]) == two, "those that would not do do not count"
    one = "no nvidia.com/gpu is free: the only one is in use, on 1 node"
    assert told(wishes(), T4[:1]) == ("GpusInUse", one)


def required(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    alternatives = [{"matchExpressions": term} for term in terms]
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": alternatives}}
    return {"affinity": {"nodeAffinity": rule}}


@pytest.mark.parametrize(
    ("expression", "meets"),
    [
        ({"operator": "In", "values": ["a", "b"]}, "a"),
        ({"operator": "NotIn", "values": ["b"]}, "a"),
        ({"operator": "NotIn", "values": ["b"]}, None),
        ({"operator": "Exists"}, "x"),
        ({"operator": "DoesNotExist"}, None),
        ({"operator": "Gt", "values": ["5"]}, "6"),
        ({"operator": "Lt", "values": ["5"]}, "4"),
    ],
)
def test_own_affinity_counts(expression: dict[str, Any], meets: str | None) -> None:
    scheduling = required([{"key": "k", **expression}])
    labels = {} if meets is None else {"k": meets}
    assert told(wishes(scheduling), [node("n", labels=labels)])[0] == "GpusInUse"
    against = {"In": "c", "NotIn": "b", "Exists": None, "DoesNotExist": "x", "Gt": "5", "Lt": "5"}
    value = against[expression["operator"]]
    other = node("n", labels={} if value is None else {"k": value})
    assert told(wishes(scheduling), [other]) == (
        "NoMatchingNode",
        "no node is as spec.scheduling.affinity wants it",
    )


def test_a_label_that_is_no_number_is_neither_more_nor_less() -> None:
    scheduling = required([{"key": "k", "operator": "Gt", "values": ["5"]}])
    assert told(wishes(scheduling), [node("n", labels={"k": "many"})])[0] == "NoMatchingNode"


def test_one_of_several_alternatives_is_enough() -> None:
    scheduling = required([{"key": "a", "operator": "Exists"}], [{"key": "b", "operator": "Exists"}])
    assert told(wishes(scheduling), [node("n", labels={"b": ""})])[0] == "GpusInUse"


TAINT = Taint(GPU, "present", "NoSchedule")


@pytest.mark.parametrize(
    ("toleration", "enough"),
    [
        ({"operator": "Exists"}, True),
        ({"key": GPU, "operator": "Exists"}, True),
        ({"key": GPU, "value": "present"}, True),
        ({"key": GPU, "operator": "Equal", "value": "present", "effect": "NoSchedule"}, True),
        ({"key": GPU, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": GPU, "value": "absent"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_taints_that_are_not_tolerated_are_named(toleration: dict[str, str], enough: bool) -> None:
    of = waiting(tolerations=(toleration,))
    reason, message = told(wishes(), [CPU, node("n", taints=(TAINT,))], of)
    if enough:
        assert reason == "GpusInUse"
    else:
        assert reason == "TaintNotTolerated"
        assert message == (
            "1 node would do but for taints that spec.scheduling.tolerations does not tolerate:"
            " nvidia.com/gpu=present:NoSchedule"
        )


def test_too_little_memory_or_cpu() -> None:
    on_cpu = wishes(count=0)
    large = waiting("0/1 nodes are available: 1 Insufficient cpu.", cpu=64)
    assert told(on_cpu, [CPU], large) == (
        "NodesTooSmall",
        "a replica asks for 64 of cpu (spec.resources.cpu), and the largest node has 16",
    )
    full = waiting("0/1 nodes are available: 1 Insufficient memory.", memory=8 * 2**30)
    assert told(on_cpu, [CPU], full) == (
        "NodesFull",
        "no node has 8.0 GiB of memory left (spec.resources.memory)",
    )


@pytest.mark.parametrize(
    ("besides", "requests", "message"),
    [
        (
            "Insufficient cpu",
            {"cpu": 8},
            "no node has a free nvidia.com/gpu and 8 of cpu left (spec.resources.cpu)",
        ),
        ("Too many pods", {}, "no node has a free nvidia.com/gpu and a place for a pod left"),
    ],
)
def test_a_gpu_is_not_called_in_use_where_something_else_is_short_too(
    besides: str, requests: dict[str, int], message: str
) -> None:
    mixed = waiting(f"0/4 nodes are available: 1 {besides}, 3 Insufficient {GPU}.", **requests)
    assert told(wishes(), [L4, *T4], mixed) == ("NodesFull", message)


CLAIM = "resourceclaimtemplate/gpu-24g"
UNCLAIMED = "0/3 nodes are available: 3 cannot allocate all claims."


def test_devices_that_none_can_be_claimed_of_are_told_apart_from_everything_else() -> None:
    """Nodes do not tell what devices there are, and those that seem to have no GPU may have one."""
    asked = wishes(resourceClaimTemplateName="gpu-24g")
    message = (
        'no node has a free device as the ResourceClaimTemplate "gpu-24g" asks for it: none is like that, or'
        " all are in use (kubectl get resourceslices, resourceclaims -A)"
    )
    assert told(asked, [CPU], waiting(UNCLAIMED, **{CLAIM: 1})) == ("NoDevice", message)
    tainted = node("n", gpus=0, taints=(TAINT,))
    assert told(asked, [CPU, tainted], waiting(UNCLAIMED, **{CLAIM: 1}))[1] == (
        f"{message}; 1 node left out for taints that spec.scheduling.tolerations does not tolerate:"
        " nvidia.com/gpu=present:NoSchedule"
    )
    assert told(asked, [tainted], waiting("untolerated taint"))[0] == "TaintNotTolerated"
    mixed = waiting(f"1 Insufficient cpu, {UNCLAIMED}", **{CLAIM: 1, "cpu": 8})
    full = "no node has a free device for the claim and 8 of cpu left (spec.resources.cpu)"
    assert told(asked, [CPU], mixed) == ("NodesFull", full)
    assert too_small([pod(node="t4-0")], asked, T4, need=2**40) == "", "the label is about another GPU"


def test_what_is_not_understood_is_left_to_the_scheduler() -> None:
    assert (
        explain(waiting("0/1 nodes are available: 1 node(s) had volume conflicts."), wishes(), [L4]) is None
    )
    assert explain(pod(), wishes(), []) is None


def test_renamed_time_slices_go_by_the_labels_of_the_gpu() -> None:
    shared = f"{GPU}.shared"
    asked = wishes(resourceName=shared, products=["NVIDIA-L4"], minMemory="20Gi")
    of = waiting(f"0/1 nodes are available: 1 Insufficient {shared}.")
    found = [node("n", "NVIDIA-L4", 23034, gpus=0, allocatable={shared: Decimal(4)})]
    assert told(asked, found, of)[1] == f"no {shared} is free: all 4 are in use, on 1 node"


def test_a_gpu_that_may_be_too_small_is_told_before_it_fails() -> None:
    on_t4 = [pod(node="t4-0")]
    assert too_small(on_t4, wishes(), T4, need=round(18.3 * 2**30)) == (
        "the GPU of t4-0 has 15.0 GiB, and the model takes about 18.3 GiB: it may not fit;"
        " spec.resources.gpu.minMemory: 20Gi asks for a larger one"
    )
    assert too_small(on_t4, wishes(), T4, need=2 * 2**30) == ""
    assert too_small(on_t4, wishes(count=2), T4, need=20 * 2**30) == ""
    assert too_small(on_t4, wishes(count=2), T4, need=36 * 2**30) == (
        "each GPU of t4-0 has 15.0 GiB, and a part of the model takes about 18.0 GiB: it may not fit;"
        " spec.resources.gpu.minMemory: 20Gi asks for a larger one"
    )
    assert too_small(on_t4, wishes(), T4, need=None) == ""
    assert too_small(on_t4, wishes(count=0), T4, need=2**40) == ""
    assert too_small([pod(node="unknown")], wishes(), T4, need=2**40) == ""
    assert too_small([pod(node="plain")], wishes(), [node("plain")], need=2**40) == ""


def test_a_node_as_the_api_server_returns_it() -> None:
    body = {
        "metadata": {"name": "n", "labels": {"a": "b"}},
        "spec": {
            "taints": [
                {"key": "x", "effect": "NoExecute"},
                {"key": "y", "value": "1", "effect": "PreferNoSchedule"},
            ]
        },
        "status": {"allocatable": {"cpu": "1500m", "memory": "2Gi", GPU: "2"}},
    }
    assert nodes.read(body) == Node(
        name="n",
        labels={"a": "b"},
        allocatable={"cpu": Decimal("1.5"), "memory": Decimal(2**31), GPU: Decimal(2)},
        taints=(Taint("x", "", "NoExecute"),),
    )
    assert str(Taint("x", "", "NoExecute")) == "x:NoExecute"
    assert nodes.read({"metadata": {"name": "new"}}) == Node("new")
