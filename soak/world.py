"""What the runs share: gateways as processes of their own, a real API server that they watch, and in this
process stand-ins for the replicas, which can be taken away.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bench.programs import ROOT, free_port
from dev.cluster import temporary
from soak.cluster import Cluster
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import slice_of

_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1
_SOMEWHERE: Final = ("192.0.2.1", 9)  # for documentation alone (RFC 5737)


class Gateway:
    """A gateway process. `ready` is what its `/readyz` said when it was last asked."""

    def __init__(self, kubeconfig: Path, **environment: str) -> None:
        self.port, self._internal_port = free_port(), free_port()
        ports = ["--port", str(self.port), "--internal-port", str(self._internal_port)]
        path = os.pathsep.join(str(ROOT / folder) for folder in ("api", "gateway"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rerank_gateway", *ports],
            env={**os.environ, "PYTHONPATH": path, "KUBECONFIG": str(kubeconfig), **environment},
            stdout=subprocess.DEVNULL,
        )
        self.ready = False

    async def watch(self) -> None:
        """Ask `/readyz` again and again, as a kubelet does, until cancelled."""
        while True:
            self.ready = await self._asked()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _asked(self) -> bool:
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._internal_port)
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
        except OSError:
            return False
        return answer.startswith(b"HTTP/1.1 200 ")

    async def is_ready(self) -> None:
        """Wait for it.

        Raises:
            RuntimeError: it ended instead.
            TimeoutError: it took too long.
        """
        async with asyncio.timeout(_START_SECONDS):
            while not self.ready:
                if self.process.poll() is not None:
                    raise RuntimeError("the gateway ended")
                await asyncio.sleep(0.02)

    async def has_ended(self) -> float:
        """Wait for it; the seconds that took."""
        started = time.monotonic()
        while self.process.poll() is None:
            await asyncio.sleep(0.02)
        return time.monotonic() - started

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class World:
    """One model with its replicas, known to an API server that any number of gateways watch."""

    def __init__(self, cluster: Cluster, kubeconfig: Path, environment: dict[str, str]) -> None:
        self.cluster = cluster
        self.gateways: list[Gateway] = []
        self.engines: list[FakeEngine] = []
        self._kubeconfig = kubeconfig
        self._environment = environment
        self._watches: dict[Gateway, asyncio.Task[None]] = {}

    async def start_gateway(self) -> Gateway:
        """A new one that is ready."""
        gateway = Gateway(self._kubeconfig, **self._environment)
        self.gateways.append(gateway)
        self._watches[gateway] = asyncio.create_task(gateway.watch())
        await gateway.is_ready()
        return gateway

    def forget(self, gateway: Gateway) -> None:
        self.gateways.remove(gateway)
        self._watches.pop(gateway).cancel()
        gateway.kill()

    async def start_engine(self) -> FakeEngine:
        """A new replica, which the gateways will hear of."""
        engine = await FakeEngine(host=_own_address()).__aenter__()
        self.engines.append(engine)
        await self.cluster.put(*slice_of([engine]))
        return engine

    async def withdraw(self, engine: FakeEngine) -> None:
        """Tell that a replica is no more."""
        self.engines.remove(engine)
        await self.cluster.delete(*slice_of([engine]))

    async def close(self) -> None:
        for gateway in list(self.gateways):
            self.forget(gateway)
        for engine in self.engines:
            await engine.stop()


@contextlib.asynccontextmanager
async def world(*, gateways: int = 1, replicas: int = 1, **environment: str) -> AsyncIterator[World]:
    """The model minilm in namespace default, without keys."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with temporary.control_plane(folder / "control-plane") as plane:
            cluster = Cluster(plane)
            cluster.install(folder / "kubeconfig")
            made = World(cluster, folder / "kubeconfig", environment)
            try:
                await cluster.put(objects.model())
                for _ in range(replicas):
                    await made.start_engine()
                for _ in range(gateways):
                    await made.start_gateway()
                yield made
            finally:
                await made.close()


def _own_address() -> str:
    """An address of this machine that is not loopback, which no EndpointSlice may hold."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_SOMEWHERE)  # sends nothing: the kernel chooses the address to send from
        address: str = probe.getsockname()[0]
        return address
