"""Fixtures with a real Kubernetes. Use: `pytest_plugins = ["dev.cluster.pytest_plugin"]`.

- `control_plane`: etcd, API server, controller manager and scheduler of this test session alone,
  on free ports, without a node; up in seconds and gone at the end, even when pytest is killed.
- `node`: the full one-node cluster. A running one is used as it is. One that the fixture started
  stays up, so that the next run is fast; in CI (variable `CI` set) it is taken down.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dev.cluster import packages, processes
from dev.cluster.access import Access
from dev.cluster.binaries import binaries
from dev.cluster.control_plane import ControlPlane, Ports
from dev.cluster.native import NativeCluster
from dev.cluster.paths import Layout


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A control plane without a node, for this session alone. Pods stay Pending in it."""
    packages.install(packages.CONTROL_PLANE_TOOLS)
    programs = binaries()
    layout = Layout(tmp_path_factory.mktemp("control-plane"))
    plane = ControlPlane(layout, str(programs), "127.0.0.1", free_ports(), nodes=False, dies_with_parent=True)
    try:
        plane.start()
        yield Access.to(plane)
    finally:
        plane.stop()
        shutil.rmtree(layout.etcd)


@pytest.fixture(scope="session")
def node() -> Iterator[Access]:
    """The full cluster with its node: pods run, Services and DNS work."""
    cluster = NativeCluster()
    was_up = processes.running(cluster.layout, "kubelet")
    cluster.up()
    yield Access.to(cluster.plane(binaries()))
    if os.environ.get("CI") and not was_up:
        cluster.down()


def free_ports() -> Ports:
    """Return ports that nobody listens on now. All are held at once, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(5)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return Ports(*(int(one.getsockname()[1]) for one in sockets))
