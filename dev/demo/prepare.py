"""A cluster with the images of this tree in it, before anything is installed."""

from dev.cluster.__main__ import chosen
from dev.demo.cluster import Cluster

IMAGES = ("operator", "gateway", "runtime-cpu")
DEMO_HUB = "demo-hub"


def prepare(*, with_demo_hub: bool) -> tuple[Cluster, str]:
    """Bring the cluster up, with the images that the demo uses and no others.

    Returns:
        The cluster and the tag of the images.

    Raises:
        ClusterError: something is missing or failed, in words for the person at the terminal.
    """
    cluster = chosen()
    tag = cluster.up_with_images([*IMAGES, DEMO_HUB] if with_demo_hub else IMAGES)
    return Cluster(cluster.environment()), tag
