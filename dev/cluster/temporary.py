"""A control plane without a node for one process alone: on free ports, up in seconds, gone at the end."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dev.cluster import packages
from dev.cluster.binaries import binaries
from dev.cluster.control_plane import ControlPlane, Ports
from dev.cluster.paths import Layout


@contextmanager
def control_plane(folder: Path, *, feature_gates: str = "") -> Iterator[ControlPlane]:
    """A control plane with its files in `folder`. It ends even when this process is killed."""
    packages.install(packages.CONTROL_PLANE_TOOLS)
    layout = Layout(folder)
    plane = ControlPlane(
        layout,
        str(binaries()),
        "127.0.0.1",
        free_ports(),
        nodes=False,
        dies_with_parent=True,
        feature_gates=feature_gates,
    )
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(layout.etcd)


def free_ports() -> Ports:
    """Return ports that nobody listens on now. All are held at once, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(5)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return Ports(*(int(one.getsockname()[1]) for one in sockets))
