"""The cluster from source on this machine: the parts in the order in which they depend on each other."""

import os
import shutil
import socket
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from dev.cluster import before, binaries, control_plane, leftovers, network, node, packages, processes
from dev.cluster.builder import Builder, base_key
from dev.cluster.commands import run
from dev.cluster.containerd import PAUSE_IMAGE, Containerd
from dev.cluster.control_plane import ControlPlane, Ports
from dev.cluster.errors import ClusterError
from dev.cluster.gpu import set_gpus
from dev.cluster.images import PRODUCTS, REGISTRY, content_keys, product, tag, version
from dev.cluster.locking import locked
from dev.cluster.node import Node
from dev.cluster.oci import load, program_image
from dev.cluster.paths import REPOSITORY, Layout, cache_dir, state_dir
from dev.cluster.progress import say
from dev.cluster.pruning import prune_node

PORTS = Ports(etcd=12379, etcd_peer=12380, apiserver=6443, controller_manager=10257, scheduler=10259)


class NativeCluster:
    """One node from source. Needs root on Linux: it mounts, makes a bridge and runs containers."""

    def __init__(self) -> None:
        self.layout = Layout(state_dir())
        self.containerd = Containerd(self.layout)

    def up(self) -> None:
        """Bring up what does not run yet, and return when pods can run. Idempotent.

        Raises:
            ClusterError: not root, something is missing, or a part failed; with its last words.
        """
        require_root()
        programs = binaries.binaries()
        packages.install(packages.CONTROL_PLANE_TOOLS + packages.NODE_TOOLS)
        with locked("cluster"):
            if not self._anchored():
                self._clear_ruins()
                refuse_taken_ports()
            self.layout.create()
            before.remember(self.layout)
            network.up()
            self._start_containerd(programs)
            self.plane(programs).start()
            Node(self.plane(programs), self.containerd).start()

    def up_with_images(self, targets: Sequence[str]) -> str:
        """Bring the cluster up while images are built, and return their tag.

        On a fresh machine the one compiles while the other waits for the network.
        """
        with ThreadPoolExecutor() as pool:
            ready = pool.submit(self.up)
            loaded = pool.submit(self.images, targets)
            both: tuple[Future[Any], ...] = (ready, loaded)
            wait(both, return_when=FIRST_EXCEPTION)
            if not (ready.done() and loaded.done()):
                say("cluster", "a part failed; waiting for the other to end")
            ready.result()
            return loaded.result()

    def images(self, targets: Sequence[str]) -> str:
        """Build the images of these targets and give them to the node. Needs only its containerd.

        Args:
            targets: stages of the Dockerfile.

        Returns:
            The tag of all images.
        """
        require_root()
        packages.install(packages.CONTROL_PLANE_TOOLS + packages.NODE_TOOLS + packages.IMAGE_TOOLS)
        with locked("cluster"):
            if not self._anchored():
                self._clear_ruins()
            self.layout.create()
            before.remember(self.layout)
            self.containerd.start()
        with locked("images"):
            keys = content_keys(REPOSITORY, base_key())
            common_tag = tag(REPOSITORY, keys)
            for target in targets:
                self._load(target, common_tag)
            prune_node(self.containerd, PRODUCTS, cache_dir() / "images" / "tags.json", common_tag)
        return common_tag

    def _load(self, target: str, common_tag: str) -> None:
        """Give the node a product's image, under the tag of its content and under the plain version."""
        wanted = REGISTRY + product(target).reference(common_tag)
        if wanted not in self.containerd.images():
            image = Builder.in_cache().image(REPOSITORY, target)
            say("images", f"loading {target}")
            sent = load(self.containerd, image, wanted)
            say("images", f"loaded {wanted} ({sent / 1e6:.0f} MB were new)")
        plain = REGISTRY + product(target).reference(version(REPOSITORY))
        run(self.containerd.ctr("images", "tag", "--force", wanted, plain))

    def tag(self) -> str:
        """Return the tag that the images of this tree have or would have."""
        return tag(REPOSITORY, content_keys(REPOSITORY, base_key()))

    def down(self) -> None:
        """Stop the cluster and remove all that it left on the machine. The cache stays. Idempotent."""
        require_root()
        with locked("images"), locked("cluster"):
            self._clear()
            Builder.in_cache().release()
        say("cluster", "down")

    def purge(self) -> None:
        """Take the cluster down and remove the cache too: programs, images and their layers."""
        self.down()
        leftovers.unmount_below(cache_dir())
        if cache_dir().exists():
            say("cluster", f"removing {cache_dir()}")
            shutil.rmtree(cache_dir())

    def gpus(self, count: int, product_name: str, memory_mib: int) -> None:
        """Pretend that the node has this many GPUs; 0 takes them away."""
        the_node = Node(self.plane(binaries.binaries()), self.containerd)
        set_gpus(the_node.kubectl, node.NAME, count, product_name, memory_mib)

    def environment(self) -> dict[str, str]:
        """Return the variables that point kubectl and helm at the cluster.

        Raises:
            ClusterError: it is not up.
        """
        if not processes.running(self.layout, "kubelet"):
            raise ClusterError("the cluster is not up")
        path = f"{binaries.binaries()}:{os.environ.get('PATH', '')}"
        return {"KUBECONFIG": str(self.layout.kubeconfig), "PATH": path}

    def plane(self, programs: Path) -> ControlPlane:
        return ControlPlane(self.layout, str(programs), network.ADDRESS, PORTS, nodes=True)

    def _start_containerd(self, programs: Path) -> None:
        self.containerd.start()
        if PAUSE_IMAGE not in self.containerd.images():
            load(self.containerd, program_image("pause", (programs / "pause").read_bytes()), PAUSE_IMAGE)

    def _anchored(self) -> bool:
        """Return whether there is something to go on with: a part that is missing is then started."""
        return any(processes.running(self.layout, part) for part in ("etcd", "kubelet"))

    def _clear_ruins(self) -> None:
        """After a crash of everything or a reboot: what is left belongs to a cluster that is gone."""
        if any(processes.pid_file(self.layout, part).exists() for part in ("etcd", "kubelet")):
            self._clear()

    def _clear(self) -> None:
        if not self.layout.root.exists():
            return
        say("cluster", "stopping and cleaning up")
        for part in node.PARTS:
            processes.stop(self.layout, part)
        self.containerd.stop()
        for part in control_plane.PARTS:
            processes.stop(self.layout, part)
        leftovers.unmount_below(self.layout.root)
        leftovers.remove_cgroups()
        leftovers.remove_log_links(self.layout)
        network.down()
        before.restore(self.layout)
        leftovers.remove_state(self.layout)


def require_root() -> None:
    """Raise unless this process may do what a node needs."""
    if os.geteuid() != 0:
        raise ClusterError("a node from source needs root on Linux; or use CLUSTER=kind or CLUSTER=current")


def refuse_taken_ports() -> None:
    """Raise when a port of ours is in use on this machine, before anything is started."""
    wanted = [("127.0.0.1", port) for port in (PORTS.etcd, PORTS.etcd_peer)]
    wanted += [("127.0.0.1", port) for port in (PORTS.controller_manager, PORTS.scheduler, 10249, 10256)]
    for address, port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise ClusterError(f"port {port} is taken on this machine: {error}") from error
