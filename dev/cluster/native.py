"""The cluster from source on this machine: the parts in the order in which they depend on each other."""

import os
import socket
from pathlib import Path

from dev.cluster import binaries, control_plane, leftovers, network, node, packages, processes
from dev.cluster.containerd import PAUSE_IMAGE, Containerd
from dev.cluster.control_plane import ControlPlane, Ports
from dev.cluster.errors import ClusterError
from dev.cluster.locking import locked
from dev.cluster.node import Node
from dev.cluster.oci import load, program_image
from dev.cluster.paths import Layout, state_dir
from dev.cluster.progress import say

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
        with locked("cluster"):
            packages.install(packages.CONTROL_PLANE_TOOLS + packages.NODE_TOOLS)
            with locked("build"):
                programs = binaries.binaries()
            if not self._anchored():
                self._clear_ruins()
                refuse_taken_ports()
            self.layout.create()
            network.up(self.layout)
            self._start_containerd(programs)
            self.plane(programs).start()
            Node(self.plane(programs), self.containerd).start()

    def start_containerd(self) -> None:
        """Start the container runtime alone, so that images can be loaded before the cluster is up."""
        require_root()
        with locked("cluster"):
            packages.install(packages.CONTROL_PLANE_TOOLS + packages.NODE_TOOLS)
            self.layout.create()
            self.containerd.start()

    def down(self) -> None:
        """Stop the cluster and remove all that it left on the machine. The cache stays. Idempotent."""
        require_root()
        with locked("cluster"):
            self._clear()
        say("cluster", "down")

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
            load(self.containerd, program_image("pause", (programs / "pause").read_bytes()), [PAUSE_IMAGE])

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
        network.down(self.layout)
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
