"""Clusters made by others: kind, and whatever the kubeconfig points at. Neither has been run here yet."""

import os
from collections.abc import Sequence

from dev.cluster.commands import run
from dev.cluster.errors import ClusterError
from dev.cluster.gpu import set_gpus
from dev.cluster.images import content_keys, product, tag
from dev.cluster.paths import REPOSITORY, cache_dir
from dev.cluster.progress import say

BUILD_SECONDS = 3600.0


class KindCluster:
    """A cluster in Docker. Needs docker, kind, kubectl and helm."""

    name = "rerank"

    def up(self) -> None:
        """Make the cluster where there is none."""
        if self.name not in run(["kind", "get", "clusters"]).split():
            say("cluster", "creating a kind cluster")
            run(["kind", "create", "cluster", "--name", self.name, "--wait", "180s"], seconds=600)

    def down(self) -> None:
        """Delete the cluster."""
        run(["kind", "delete", "cluster", "--name", self.name])

    def purge(self) -> None:
        """Delete the cluster; its images are Docker's."""
        self.down()

    def environment(self) -> dict[str, str]:
        """Return the variables that point kubectl and helm at the cluster."""
        path = cache_dir() / "kind.kubeconfig"
        run(["kind", "export", "kubeconfig", "--name", self.name, "--kubeconfig", path])
        return {"KUBECONFIG": str(path)}

    def up_with_images(self, targets: Sequence[str]) -> str:
        """Do the one, then the other. Return the images' tag."""
        self.up()
        return self.images(targets)

    def images(self, targets: Sequence[str]) -> str:
        """Build the images with Docker and load them. Return their tag."""
        common_tag = self.tag()
        for target in targets:
            reference = product(target).reference(common_tag)
            say("images", f"building {reference}")
            run(["docker", "build", "--target", target, "-t", reference, REPOSITORY], seconds=BUILD_SECONDS)
            run(["kind", "load", "docker-image", "--name", self.name, reference], seconds=BUILD_SECONDS)
        return common_tag

    def tag(self) -> str:
        """Return the tag that the images of this tree have or would have."""
        return tag(REPOSITORY, content_keys(REPOSITORY, "kind"))

    def gpus(self, count: int, product_name: str, memory_mib: int) -> None:
        """Pretend that the node has GPUs."""
        kubeconfig = self.environment()["KUBECONFIG"]

        def kubectl(*words: str) -> str:
            return run(["kubectl", f"--kubeconfig={kubeconfig}", *words])

        set_gpus(kubectl, f"{self.name}-control-plane", count, product_name, memory_mib)


class CurrentCluster:
    """The kubeconfig's current context, as it is. Its nodes must be able to pull the images."""

    def up(self) -> None:
        """Check that the cluster answers."""
        run(["kubectl", "version"])

    def down(self) -> None:
        """Leave it alone: it is not ours."""
        say("cluster", "the current context is not ours to take down")

    def purge(self) -> None:
        """Leave it alone."""
        self.down()

    def environment(self) -> dict[str, str]:
        """Return what this process itself was given."""
        kubeconfig = os.environ.get("KUBECONFIG")
        return {"KUBECONFIG": kubeconfig} if kubeconfig else {}

    def up_with_images(self, targets: Sequence[str]) -> str:
        """Do the one, then the other. Return the images' tag."""
        self.up()
        return self.images(targets)

    def images(self, targets: Sequence[str]) -> str:
        """Return the tag given by `RERANK_IMAGE_TAG`: nothing can be loaded into such a cluster."""
        say("images", f"the cluster must be able to pull {', '.join(targets)} with tag {self.tag()}")
        return self.tag()

    def tag(self) -> str:
        """Return the tag of the images that were pushed for it."""
        given = os.environ.get("RERANK_IMAGE_TAG")
        if not given:
            raise ClusterError("set RERANK_IMAGE_TAG to the tag of the images that this cluster can pull")
        return given

    def gpus(self, count: int, product_name: str, memory_mib: int) -> None:
        """Refuse: the nodes of somebody else's cluster are not to be patched."""
        raise ClusterError(
            f"no pretended GPUs ({count} {product_name}, {memory_mib} MiB) in a cluster not ours"
        )
