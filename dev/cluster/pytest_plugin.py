"""Fixtures with a real Kubernetes. Use: `pytest_plugins = ["dev.cluster.pytest_plugin"]`.

- `control_plane`: etcd, API server, controller manager and scheduler of this test session alone,
  on free ports, without a node; up in seconds and gone at the end, even when pytest is killed.
- `node`: the full one-node cluster. A running one is used as it is. One that the fixture started
  stays up, so that the next run is fast; in CI (variable `CI` set) it is taken down.
"""

import os
from collections.abc import Iterator

import pytest

from dev.cluster import processes, temporary
from dev.cluster.access import Access
from dev.cluster.binaries import binaries
from dev.cluster.native import NativeCluster


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A control plane without a node, for this session alone. Pods stay Pending in it."""
    with temporary.control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield Access.to(plane)


@pytest.fixture(scope="session")
def node() -> Iterator[Access]:
    """The full cluster with its node: pods run, Services and DNS work."""
    cluster = NativeCluster()
    was_up = processes.running(cluster.layout, "kubelet")
    cluster.up()
    yield Access.to(cluster.plane(binaries()))
    if os.environ.get("CI") and not was_up:
        cluster.down()
