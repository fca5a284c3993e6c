"""Where a replica may run: the fields of its pod that the scheduler goes by. Pure.

GPUs are told apart by the node labels of NVIDIA GPU feature discovery (k8s-device-plugin, internal/lm): the
name of the resource with a suffix, `nvidia.com/gpu.memory` in MiB for whole GPUs, and
`nvidia.com/mig-1g.10gb.memory` for slices.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from rerank_api import names
from rerank_api.effective import EffectiveGpu
from rerank_api.model_deployment import ModelDeployment
from rerank_operator import quantity
from rerank_operator.resources import Object

# What a time-sliced GPU is offered as where the device plugin renames it; its labels keep the name without.
_SHARED: Final = ".shared"
_MIB: Final = 2**20
_HOSTNAME: Final = "kubernetes.io/hostname"
REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def placement(model: ModelDeployment, gpu: EffectiveGpu) -> Object:
    """The scheduling fields of a pod's spec."""
    scheduling = model.spec.scheduling
    own = {names.MODEL_LABEL: model.metadata.name}
    spread = scheduling.topology_spread_constraints
    if spread is None:
        spread = [{"maxSkew": 1, "topologyKey": _HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway"}]
    fields: Object = {
        "nodeSelector": dict(scheduling.node_selector),
        "tolerations": [dict(toleration) for toleration in scheduling.tolerations],
        "affinity": _affinity(scheduling.affinity, requirements(gpu), own),
        "priorityClassName": scheduling.priority_class_name,
        "runtimeClassName": scheduling.runtime_class_name,
        "topologySpreadConstraints": [_spread(constraint, own) for constraint in spread],
    }
    return {name: value for name, value in fields.items() if value}


def requirements(gpu: EffectiveGpu) -> list[Object]:
    """What a node's labels must say of its GPUs."""
    if not gpu.count or gpu.claim_template is not None:
        return []
    found: list[Object] = []
    if gpu.products:
        found.append(
            {"key": product_label(gpu.resource_name), "operator": "In", "values": list(gpu.products)}
        )
    if gpu.min_memory is not None:
        more_than = str(mebibytes(gpu.min_memory) - 1)
        found.append({"key": memory_label(gpu.resource_name), "operator": "Gt", "values": [more_than]})
    return found


def product_label(resource: str) -> str:
    """The node label that names the GPUs of a resource."""
    return f"{resource.removesuffix(_SHARED)}.product"


def memory_label(resource: str) -> str:
    """The node label that tells their memory, in MiB."""
    return f"{resource.removesuffix(_SHARED)}.memory"


def mebibytes(memory: str) -> int:
    """A quantity of memory in MiB, rounded up."""
    return math.ceil(quantity.parse(memory) / _MIB)


def _affinity(asked: Mapping[str, Any], required: list[Object], own: dict[str, str]) -> Object:
    """The affinity that was asked for; each of the alternatives for nodes has to meet `required` too."""
    affinity = {
        kind: {when: [_near(term, own) for term in terms] for when, terms in rules.items()}
        for kind, rules in asked.items()
        if kind != "nodeAffinity"
    }
    nodes = dict(asked.get("nodeAffinity", {}))
    if required:
        terms = nodes.get(REQUIRED, {}).get("nodeSelectorTerms") or [{"matchExpressions": []}]
        nodes[REQUIRED] = {
            "nodeSelectorTerms": [
                {"matchExpressions": [*term["matchExpressions"], *required]} for term in terms
            ]
        }
    return ({"nodeAffinity": nodes} if nodes else {}) | affinity


def _near(term: Mapping[str, Any], own: dict[str, str]) -> Object:
    if "podAffinityTerm" in term:
        return {**term, "podAffinityTerm": _about(term["podAffinityTerm"], own)}
    return _about(term, own)


def _spread(constraint: Mapping[str, Any], own: dict[str, str]) -> Object:
    if "labelSelector" in constraint:
        return dict(constraint)
    # Each revision by itself: else the last replicas of a rollout go where the old ones are not.
    return {**_about(constraint, own), "matchLabelKeys": ["pod-template-hash"]}


def _about(rule: Mapping[str, Any], own: dict[str, str]) -> Object:
    """A rule about pods; without a selector of its own it is about the replicas of this model."""
    return {"labelSelector": {"matchLabels": own}, **rule}
