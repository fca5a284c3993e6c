"""GPUs that the node does not have: the scheduler and the kubelet take its word for them."""

from dev.cluster.native import NativeCluster

GPU = "nvidia.com/gpu"


def set_gpus(count: int) -> None:
    """Let the node say that it has so many GPUs, sold with 24 GB each."""
    NativeCluster().gpus(count, "NVIDIA-L4", 23034)
