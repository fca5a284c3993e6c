"""A cluster with the images of this tree in it, before anything is installed."""

from concurrent.futures import ThreadPoolExecutor

from dev.cluster.__main__ import chosen
from dev.demo.cluster import Cluster

IMAGES = ("operator", "gateway", "runtime-cpu")
DEMO_HUB = "demo-hub"


def prepare(*, with_demo_hub: bool) -> tuple[Cluster, str]:
    """Bring the cluster up, and build and load the images that the demo uses, both at once.

    What waits for the network (packages of the images) overlaps with what compiles (Kubernetes).

    Returns:
        The cluster and the tag of the images.

    Raises:
        ClusterError: something is missing or failed, in words for the person at the terminal.
    """
    cluster = chosen()
    targets = [*IMAGES, DEMO_HUB] if with_demo_hub else list(IMAGES)
    with ThreadPoolExecutor(max_workers=2) as pool:
        images = pool.submit(cluster.images, targets)
        up = pool.submit(cluster.up)
        up.result()
        tag = images.result()
    return Cluster(cluster.environment()), tag
