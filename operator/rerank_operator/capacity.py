"""Why no node takes a replica, in words for the person who can change it. Pure; used by situation.

The scheduler counts nodes by what it found first: "0/5 nodes are available". Here the wishes of the replica
are held against the nodes, one after the other, until one is found that none of them meets.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from rerank_api.effective import Effective, EffectiveGpu
from rerank_api.model_deployment import Scheduling
from rerank_operator.builders import placement
from rerank_operator.causes import Cause
from rerank_operator.nodes import Node, Taint
from rerank_operator.pods import CLAIMED, Pod, claimed

_GIB: Final = 2**30
_MIB: Final = 2**20
# vLLM's --gpu-memory-utilization by default.
_UTILIZATION: Final = 0.92
_OWN_RESOURCES: Final = {"cpu": "spec.resources.cpu", "memory": "spec.resources.memory"}
# Of a claim the word before its name: see `claimed`.
_OTHERS: Final = {"pods": "a place for a pod", CLAIMED: "a free device for the claim"}
_NO_DISCOVERY: Final = "is NVIDIA GPU feature discovery installed?"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a replica asks of a node."""

    effective: Effective
    scheduling: Scheduling

    @property
    def gpu(self) -> EffectiveGpu:
        """Its GPU."""
        return self.effective.resources.gpu


def explain(pod: Pod, wishes: Wishes, nodes: Sequence[Node]) -> Cause | None:
    """What keeps `pod` from every node, if it can be said better than the scheduler does."""
    if not pod.unschedulable:
        return None
    found = _explain(pod, wishes, nodes)
    if found is None:
        return None
    reason, message = found
    return Cause("Scheduled", reason, f"{message} (scheduler: {pod.unschedulable})")


def _explain(pod: Pod, wishes: Wishes, nodes: Sequence[Node]) -> tuple[str, str] | None:
    allowed = [node for node in nodes if _allowed(node, wishes.scheduling)]
    if not allowed:
        if not nodes:
            return "NoMatchingNode", "there is no node"
        return "NoMatchingNode", f"no node is as {_restrictions(wishes.scheduling)} wants it"
    gpu = wishes.gpu
    right = [node for node in allowed if _is_right(node, gpu)]
    if not right:
        return "NoMatchingGpu", _no_gpu(gpu, allowed)
    open_ones = [node for node in right if not _closed(node, pod)]
    if not open_ones:
        taints = ", ".join(sorted({str(taint) for node in right for taint in _closed(node, pod)}))
        said = "would do but for taints that spec.scheduling.tolerations does not tolerate"
        return "TaintNotTolerated", f"{_nodes(len(right))} {said}: {taints}"
    template = gpu.claim_template
    if template is not None and pod.short_of == {claimed(template)}:
        return "NoDevice", _no_device(pod, template, right)
    return _no_room(pod, wishes.gpu, open_ones)


def _no_device(pod: Pod, template: str, nodes: Sequence[Node]) -> str:
    """Devices are not told by nodes, and which of them a claim would take the scheduler alone knows."""
    message = (
        f'no node has a free device as the ResourceClaimTemplate "{template}" asks for it: none is like that,'
        " or all are in use (kubectl get resourceslices, resourceclaims -A)"
    )
    closed = [node for node in nodes if _closed(node, pod)]
    if closed:
        taints = ", ".join(sorted({str(taint) for node in closed for taint in _closed(node, pod)}))
        untolerated = "left out for taints that spec.scheduling.tolerations does not tolerate"
        message += f"; {_nodes(len(closed))} {untolerated}: {taints}"
    return message


def _no_room(pod: Pod, gpu: EffectiveGpu, nodes: Sequence[Node]) -> tuple[str, str] | None:
    """What there is too little of on the nodes that are right otherwise."""
    own = sorted(_OWN_RESOURCES.keys() & pod.short_of)
    for resource in own:
        asked, most = _asked_for(pod, resource), max(_offered(node, resource) for node in nodes)
        if asked > most:
            said = f"a replica asks for {_amount(resource, asked)} of {resource} ({_OWN_RESOURCES[resource]})"
            return "NodesTooSmall", f"{said}, and the largest node has {_amount(resource, most)}"
    template = gpu.claim_template
    wants_gpu = gpu.count and (gpu.resource_name if template is None else claimed(template)) in pod.short_of
    if wants_gpu and pod.short_of == {gpu.resource_name}:
        total = int(sum(_offered(node, gpu.resource_name) for node in nodes))
        if gpu.count > 1:
            said = f"no node has {gpu.count} {gpu.resource_name} free: too many of {total} are"
        elif total == 1:
            said = f"no {gpu.resource_name} is free: the only one is"
        else:
            said = f"no {gpu.resource_name} is free: all {total} are"
        return "GpusInUse", f"{said} in use, on {_nodes(len(nodes))}"
    if not (wants_gpu or own):
        return None
    # One node may be short of this and another one of that: a free GPU may stand where no CPU is left.
    others = sorted(pod.short_of - _OWN_RESOURCES.keys())
    free = "a free" if gpu.count < 2 else f"{gpu.count} free"
    short = [_OTHERS.get(resource.partition("/")[0], f"{free} {resource}") for resource in others]
    short += [f"{_amount(resource, _asked_for(pod, resource))} of {resource}" for resource in own]
    fields = ", ".join(_OWN_RESOURCES[resource] for resource in own)
    return "NodesFull", f"no node has {' and '.join(short)} left" + (f" ({fields})" if fields else "")


def too_small(pods: Iterable[Pod], wishes: Wishes, nodes: Collection[Node], *, need: int | None) -> str:
    """A warning that a replica's GPU may not hold its part of the model, or "".

    `need` is what all parts take, in bytes, None if not known.
    """
    gpu = wishes.gpu
    if need is None or not gpu.count or gpu.claim_template is not None:
        return ""
    need = math.ceil(need / gpu.count)
    each, what = ("the GPU", "the model") if gpu.count == 1 else ("each GPU", "a part of the model")
    share = wishes.effective.engine.gpu_memory_utilization or _UTILIZATION
    by_name = {node.name: node for node in nodes}
    for pod in pods:
        node = by_name.get(pod.node)
        memory = _memory(node, gpu) if node is not None else None
        if node is None or memory is None or need <= memory * _MIB * share:
            continue
        enough = math.ceil(need / share / _GIB)
        return (
            f"{each} of {node.name} has {_gib(memory * _MIB)}, and {what} takes about {_gib(need)}:"
            f" it may not fit; spec.resources.gpu.minMemory: {enough}Gi asks for a larger one"
        )
    return ""


def _is_right(node: Node, gpu: EffectiveGpu) -> bool:
    if not gpu.count or gpu.claim_template is not None:
        return True
    return _offered(node, gpu.resource_name) >= gpu.count and all(
        _meets(node.labels, requirement) for requirement in placement.requirements(gpu)
    )


def _no_gpu(gpu: EffectiveGpu, nodes: Sequence[Node]) -> str:
    """Which of the wishes for a GPU no node meets."""
    offering = [node for node in nodes if _offered(node, gpu.resource_name) >= gpu.count]
    if not offering:
        most = max((int(_offered(node, gpu.resource_name)) for node in nodes), default=0)
        if most:
            asked = f"{gpu.count} {gpu.resource_name} (spec.resources.gpu.count)"
            return f"no node has {asked}; the one with most has {most}"
        others = sorted({name for node in nodes for name in node.allocatable if _like_a_gpu(name)})
        if others:
            there = ", ".join(others)
            return f"no node offers {gpu.resource_name}; there is {there} (spec.resources.gpu.resourceName)"
        return (
            f"no node offers {gpu.resource_name}: is the device plugin installed?"
            " spec.resources.gpu.count: 0 serves on the CPU"
        )
    named = offering
    if gpu.products:
        named = [node for node in offering if _product(node, gpu) in gpu.products]
        if not named:
            return f"no node has a GPU of spec.resources.gpu.products; {_what_there_is(offering, gpu)}"
    memories = [memory for node in named if (memory := _memory(node, gpu)) is not None]
    if not memories:
        label = placement.memory_label(gpu.resource_name)
        return f"no node tells its GPU's memory, in the label {label}: {_NO_DISCOVERY}"
    largest = max(memories)
    having = [node for node in named if _memory(node, gpu) == largest]
    products = sorted({product for node in having if (product := _product(node, gpu))})
    which = f" ({', '.join(products)})" if products else ""
    wanted = "a GPU" if gpu.count == 1 else f"{gpu.count} GPUs"
    kind = " of spec.resources.gpu.products" if gpu.products else ""
    return (
        f"no node has {wanted}{kind} with {gpu.min_memory} (spec.resources.gpu.minMemory);"
        f" the largest{which} has {_gib(largest * _MIB)}, on {_nodes(len(having))}"
    )


def _what_there_is(nodes: Iterable[Node], gpu: EffectiveGpu) -> str:
    counts: dict[str, int] = {}
    for node in nodes:
        product = _product(node, gpu)
        if product:
            counts[product] = counts.get(product, 0) + 1
    if not counts:
        return f"no node has the label {placement.product_label(gpu.resource_name)}: {_NO_DISCOVERY}"
    return "there is " + ", ".join(f"{name} on {_nodes(n)}" for name, n in sorted(counts.items()))


def _allowed(node: Node, scheduling: Scheduling) -> bool:
    if not scheduling.node_selector.items() <= node.labels.items():
        return False
    required = scheduling.affinity.get("nodeAffinity", {}).get(placement.REQUIRED)
    return required is None or any(
        all(_meets(node.labels, expression) for expression in term["matchExpressions"])
        for term in required["nodeSelectorTerms"]
    )


def _meets(labels: Mapping[str, str], expression: Mapping[str, Any]) -> bool:
    """As the scheduler decides it (k8s.io/apimachinery/pkg/labels, Requirement.Matches)."""
    value, values = labels.get(expression["key"]), expression.get("values", ())
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case operator:
            if value is None or not re.fullmatch(r"-?\d+", value):
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])


def _closed(node: Node, pod: Pod) -> list[Taint]:
    return [taint for taint in node.taints if not any(map(taint.tolerated_by, pod.claim.tolerations))]


def _offered(node: Node, resource: str) -> Decimal:
    return node.allocatable.get(resource, Decimal(0))


def _asked_for(pod: Pod, resource: str) -> Decimal:
    return pod.claim.requests.get(resource, Decimal(0))


def _restrictions(scheduling: Scheduling) -> str:
    parts = {"nodeSelector": scheduling.node_selector, "affinity": scheduling.affinity.get("nodeAffinity")}
    return " and ".join(f"spec.scheduling.{name}" for name, value in parts.items() if value)


def _product(node: Node, gpu: EffectiveGpu) -> str:
    return node.labels.get(placement.product_label(gpu.resource_name), "")


def _memory(node: Node, gpu: EffectiveGpu) -> int | None:
    """The memory of the node's GPUs in MiB, where it tells."""
    text = node.labels.get(placement.memory_label(gpu.resource_name), "")
    return int(text) if text.isdecimal() else None


def _like_a_gpu(resource: str) -> bool:
    return "/" in resource and ("gpu" in resource or "mig-" in resource)


def _gib(amount: int | Decimal) -> str:
    return f"{amount / _GIB:.1f} GiB"


def _amount(resource: str, amount: Decimal) -> str:
    return _gib(amount) if resource == "memory" else f"{amount.normalize():f}"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
