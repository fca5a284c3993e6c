"""How exactly three gateways together hold a key to its limits, and what limits cost."""

import asyncio
import contextlib
import itertools
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
import yaml

from bench import load, markdown, programs, workload
from bench.programs import Program
from rerank_api import keys
from tests.rerank_gateway import objects

_GATEWAYS = 3
_MINUTE = 60.0
_OVERLOAD_SECONDS = 75.0
_RESTART_SECONDS = 8.0
_UNPUBLISHED_SECONDS = 1.0  # that a cluster takes to publish that a pod is gone
_COST_REQUESTS = 4000
_WHAT = f"""\
{_GATEWAYS} gateways, a key for each line, requests to all gateways in turn. Admitted: the most in any minute.
"""


@dataclass(frozen=True)
class Case:
    """A key with limits. `documents` of each request."""

    name: str
    limits: dict[str, int]
    documents: int = 1
    minted: keys.MintedKey = field(default_factory=keys.mint)

    def body(self) -> objects.Object:
        return objects.api_key(self.minted, name=self.name, limits=self.limits)

    def request(self) -> bytes:
        return workload.post(self.minted.text, ["panda"] * self.documents)


@dataclass
class Replica:
    """A gateway that may be killed and started again, at the same ports."""

    port: int = field(default_factory=programs.free_port)
    internal: int = field(default_factory=programs.free_port)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    program: Program | None = None

    def start(self, folder: str) -> None:
        ports = (f"--port={self.port}", f"--internal-port={self.internal}")
        self.program = self.stack.enter_context(
            programs.started("-m", "rerank_gateway", "--config-dir", folder, *ports, port=self.port)
        )

    def kill(self) -> None:
        if self.program is not None:
            os.kill(self.program.pid, signal.SIGKILL)
        self.program = None
        self.stack.close()

    def until_ready(self) -> None:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(self._url("readyz"), timeout=1):
                return
            time.sleep(0.05)

    def _url(self, page: str) -> str:
        return f"http://127.0.0.1:{self.internal}/{page}"

    def cpu_seconds(self) -> float:
        return self.program.cpu_seconds() if self.program else 0.0


BURST = Case("burst", {"requestsPerMinute": 600})
LARGE = Case("large", {"documentsPerMinute": 10_000}, documents=700)
SMALL = Case("small", {"requestsPerMinute": 5})
HELD = Case("held", {"concurrentRequests": 20})
STEADY = Case("steady", {"requestsPerMinute": 1200})
RESTARTS = Case("restarts", {"requestsPerMinute": 1200})
AMPLE = Case("ample", {"requestsPerMinute": 10**9, "documentsPerMinute": 10**12, "concurrentRequests": 10**6})
FREE = Case("free", {})
CASES = (BURST, LARGE, SMALL, HELD, STEADY, RESTARTS, AMPLE, FREE)


def report() -> str:
    """Measure, and say it in Markdown."""
    rows = []
    with workload.engines(1, step_seconds=1.0) as (slow,), _replicas(slow) as (replicas, _):
        rows.append(_row("requests in progress", HELD, 20, 200, asyncio.run(_at_once(replicas, HELD, 200))))
    with workload.engines(1) as (engine,), _replicas(engine) as (replicas, folder):
        rows.append(_row("1,200 at once", BURST, 600, 1200, asyncio.run(_at_once(replicas, BURST, 1200))))
        rows.append(_row("30 at once", SMALL, 5, 30, asyncio.run(_at_once(replicas, SMALL, 30))))
        admitted = asyncio.run(_at_once(replicas, LARGE, 60)) * LARGE.documents
        rows.append(_row("60 of 700 documents at once", LARGE, 9800, 60 * 700, admitted))
        most, offered = asyncio.run(_overload(replicas, STEADY))
        rows.append(_row("three times the limit, 75 s", STEADY, 1200, offered, most))
        idle = _idle_cpu(replicas)
        costs = [_cost(replicas[0], case) for case in (FREE, AMPLE)]
        most, offered = asyncio.run(_with_restarts(replicas, RESTARTS, folder))
        rows.append(_row(f"the same, one killed every {_RESTART_SECONDS:g} s", RESTARTS, 1200, offered, most))
    held = markdown.part(
        "Limits held", _WHAT, ("what", "limit", "possible", "offered", "admitted", "above"), rows
    )
    cost = markdown.part(
        "What limits cost",
        "CPU of one gateway of three: 10 KB bodies, 16 in flight; and with nothing to do.",
        ("key without limits, µs/request", "with limits, µs/request", "idle, % of a core"),
        [(f"{costs[0]:.0f}", f"{costs[1]:.0f}", f"{idle:.2f}")],
    )
    return f"{held}\n{cost}"


def _row(what: str, case: Case, possible: int, offered: int, admitted: int) -> tuple[str, ...]:
    ((name, limit),) = case.limits.items()
    above = f"{100 * (admitted - limit) / limit:.1f} %" if admitted > limit else "–"
    row = (what, f"{name}: {limit}", str(possible), str(offered), str(admitted), above)
    print(row, flush=True)
    return row


@contextlib.contextmanager
def _replicas(engine: Program) -> Iterator[tuple[list[Replica], str]]:
    replicas = [Replica() for _ in range(_GATEWAYS)]
    with tempfile.TemporaryDirectory() as folder:
        engine_slice = objects.endpoint_slice(["127.0.0.1"], port=engine.port, of=workload.MODEL)
        bodies = [objects.model(workload.MODEL, repo=None), engine_slice, *(case.body() for case in CASES)]
        Path(folder, "objects.yaml").write_text(yaml.safe_dump_all(bodies))
        _publish(folder, replicas)
        try:
            for replica in replicas:
                replica.start(folder)
            for replica in replicas:
                replica.until_ready()
            time.sleep(3)  # all of them know all
            yield replicas, folder
        finally:
            for replica in replicas:
                replica.kill()


def _publish(folder: str, replicas: list[Replica]) -> None:
    slices = [objects.peers_slice(replica.internal) for replica in replicas]
    new = Path(folder, "peers.new")
    new.write_text(yaml.safe_dump_all(slices))
    new.rename(Path(folder, "peers.yaml"))


async def _at_once(replicas: list[Replica], case: Case, count: int) -> int:
    """How many of so many requests at once were admitted."""
    per_second = 10_000.0
    floods = [
        load.flood(
            replica.port, case.request(), per_second=per_second, seconds=count / len(replicas) / per_second
        )
        for replica in replicas
    ]
    return sum(found.statuses[200] for found in await asyncio.gather(*floods))


async def _overload(replicas: list[Replica], case: Case) -> tuple[int, int]:
    """Three times the limit. Returns the most that was admitted in any minute, and what was offered."""
    admitted: list[float] = []
    offered = 0
    start = time.perf_counter()
    pause = _MINUTE / case.limits["requestsPerMinute"] / 3
    clients = [_Client(replica, case.request()) for replica in replicas]
    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            at = start + number * pause
            if at > start + _OVERLOAD_SECONDS:
                break
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            living = [client for client in clients if client.replica.program is not None]
            group.create_task(living[number % len(living)].ask(admitted))
            offered += 1
    admitted.sort()
    most = 0
    first = 0
    for last, at in enumerate(admitted):
        while admitted[first] <= at - _MINUTE:
            first += 1
        most = max(most, last - first + 1)
    return most, int(offered * _MINUTE / _OVERLOAD_SECONDS)


async def _with_restarts(replicas: list[Replica], case: Case, folder: str) -> tuple[int, int]:
    """The same, while one after the other is killed, replaced and ready again."""

    async def restart() -> None:
        for replica in itertools.cycle(replicas):
            await asyncio.sleep(_RESTART_SECONDS)
            others = [other for other in replicas if other is not replica]
            await asyncio.to_thread(replica.kill)
            await asyncio.sleep(_UNPUBLISHED_SECONDS)
            _publish(folder, others)
            new = Replica(replica.port, replica.internal)
            await asyncio.to_thread(new.start, folder)
            _publish(folder, replicas)
            await asyncio.to_thread(new.until_ready)
            replica.stack, replica.program = new.stack, new.program

    restarting = asyncio.create_task(restart())
    try:
        return await _overload(replicas, case)
    finally:
        restarting.cancel()
        await asyncio.wait([restarting])


@dataclass
class _Client:
    """Asks one gateway, over kept connections, and takes a broken one for a refusal."""

    replica: Replica
    request: bytes
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def ask(self, admitted: list[float]) -> None:
        try:
            pair = (
                self.idle.pop()
                if self.idle
                else await asyncio.open_connection("127.0.0.1", self.replica.port)
            )
            head = await load.ask(*pair, self.request)
        except (OSError, asyncio.IncompleteReadError):
            self.idle.clear()
            return
        if head.startswith(b"HTTP/1.1 200"):
            admitted.append(time.perf_counter())
        self.idle.append(pair)


def _idle_cpu(replicas: list[Replica]) -> float:
    """Percent of a core that a gateway takes that nobody asks."""
    time.sleep(5)  # what was under way has ended
    seconds = 10.0
    before = sum(replica.cpu_seconds() for replica in replicas)
    time.sleep(seconds)
    return 100 * (sum(replica.cpu_seconds() for replica in replicas) - before) / seconds / len(replicas)


def _cost(replica: Replica, case: Case) -> float:
    """Microseconds of CPU for a request."""
    request = workload.post(case.minted.text, workload.documents(10))
    uvloop.run(load.run(replica.port, request, in_flight=16, requests=_COST_REQUESTS // 4))
    before = replica.cpu_seconds()
    uvloop.run(load.run(replica.port, request, in_flight=16, requests=_COST_REQUESTS))
    return (replica.cpu_seconds() - before) / _COST_REQUESTS * 1e6
