"""GPUs without GPUs: the scheduler, quota and kubelet treat a patched capacity as real."""

import json
from collections.abc import Callable

RESOURCE = "nvidia.com/gpu"
PRODUCT_LABEL = "nvidia.com/gpu.product"
MEMORY_LABEL = "nvidia.com/gpu.memory"
"""The labels of NVIDIA's GPU feature discovery; memory in MiB."""

Kubectl = Callable[..., str]


def patches(count: int, product: str, memory_mib: int) -> tuple[str, str]:
    """Return the JSON merge patches of a node's status and of the node itself.

    Args:
        count: GPUs that the node shall have; 0 removes them and their labels.
        product: the model's name as the label has it, such as `NVIDIA-L4`.
        memory_mib: each GPU's memory.
    """
    amount = str(count) if count else None
    status = {"status": {"capacity": {RESOURCE: amount}, "allocatable": {RESOURCE: amount}}}
    labels = {
        PRODUCT_LABEL: product if count else None,
        MEMORY_LABEL: str(memory_mib) if count else None,
    }
    return json.dumps(status), json.dumps({"metadata": {"labels": labels}})


def set_gpus(kubectl: Kubectl, node: str, count: int, product: str, memory_mib: int) -> None:
    """Give a node this many GPUs, or none.

    Args:
        kubectl: runs kubectl with these words.
        node: the node's name.
        count: see `patches`, as the others.
        product: see `patches`.
        memory_mib: see `patches`.
    """
    status, labels = patches(count, product, memory_mib)
    kubectl("patch", "node", node, "--type=merge", "-p", labels)
    kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", status)
