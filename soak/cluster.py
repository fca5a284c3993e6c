"""A real API server: read by gateways with the rights that the chart grants them, written by us as its
administrator, and taken away.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.programs import free_port
from dev.cluster import processes
from dev.cluster.access import Access
from dev.cluster.control_plane import ControlPlane
from dev.cluster.kubeconfig import kubeconfig, write_private
from tests.apiserver.api import Api, Object, with_crds
from tests.apiserver.operator_process import install_rights

_PLURALS: Final = {
    "APIKey": "apikeys",
    "ModelDeployment": "modeldeployments",
    "EndpointSlice": "endpointslices",
}
_WRITTEN_METADATA: Final = {"name", "namespace", "labels"}  # the API server sets the rest


class Cluster:
    """Objects behind an API server. Nothing here holds up the event loop."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._api = Api(Access.to(plane))

    def install(self, file: Path) -> None:
        """Install the CRDs and the gateway's account, and write a kubeconfig for that. This does block."""
        token = install_rights(with_crds(self._api), "rerank-gateway")
        authority = self._plane.authority.pair.certificate
        write_private(file, kubeconfig(self._plane.url, authority, token))

    async def put(self, *bodies: Object) -> None:
        """Create or change objects, several at once; of each, first the spec and then the status."""
        await _for_each(self._put, bodies)

    async def delete(self, *bodies: Object) -> None:
        """Delete objects, several at once."""
        await _for_each(lambda body: self._api.delete(_path(body)), bodies)

    async def kill(self) -> None:
        """Kill the API server: one that is asked to end keeps open watches for long.

        All that it was told stays in etcd.
        """
        await asyncio.to_thread(processes.kill, self._plane.layout, "kube-apiserver")

    async def start(self) -> None:
        """Start it again and wait until it is ready."""
        # It dies with the thread that starts it, and threads of the loop's own pool live as long as that.
        await asyncio.to_thread(self._plane.start)
        self._api = Api(Access.to(self._plane))  # the old one's connections are dead

    def elsewhere(self) -> "Cluster":
        """The same objects behind an API server that does not run yet, on a port that no gateway knows.

        To be asked for while this one listens, and started while it does not.
        """
        return Cluster(replace(self._plane, ports=replace(self._plane.ports, apiserver=free_port())))

    def _put(self, body: Object) -> None:
        metadata = {name: value for name, value in body["metadata"].items() if name in _WRITTEN_METADATA}
        path, sent = _path(body), {**body, "metadata": metadata}
        self._api.apply(path, sent)
        if "status" in body:
            self._api.apply(f"{path}/status", sent)


async def _for_each(act: Callable[[Object], None], bodies: tuple[Object, ...]) -> None:
    async with asyncio.TaskGroup() as group:
        for body in bodies:
            group.create_task(asyncio.to_thread(act, body))


def _path(body: Object) -> str:
    metadata = body["metadata"]
    place = f"/apis/{body['apiVersion']}/namespaces/{metadata['namespace']}"
    return f"{place}/{_PLURALS[body['kind']]}/{metadata['name']}"
