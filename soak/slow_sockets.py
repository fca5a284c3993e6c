"""A thousand connections that do nothing fast: how long they live, and what that costs those who ask."""

import asyncio
import contextlib
import multiprocessing
import socket
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import uvloop

from rerank_api import keys
from soak.bound import Bound, percentile
from soak.client import Client, Tally, rerank
from soak.world import world
from tests.rerank_gateway import objects

_OF_EACH = 250
_PER_SECOND = 100.0
_CLOSED_SECONDS = 15.0
_QUIET_SECONDS = 15.0
_OPENED_PER_SECOND = 100.0
_ESTABLISHED = "01"
_LONG = ["panda " * 100] * 20  # an answer of 12 KB
_SMALL_BUFFER = 4096  # of the client's socket: it holds next to nothing

Kind = Callable[[asyncio.StreamWriter, keys.MintedKey], Coroutine[None, None, None]]


def run(length: float) -> list[Bound]:
    """Half heads, dribbled bodies, silence, and answers that nobody reads, all at once."""
    return uvloop.run(_run(max(1, round(_OF_EACH * length))))


async def _half_head(writer: asyncio.StreamWriter, _: keys.MintedKey) -> None:
    writer.write(b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\n")
    while True:
        await asyncio.sleep(1)
        writer.write(b"X")


async def _dribbled_body(writer: asyncio.StreamWriter, key: keys.MintedKey) -> None:
    writer.write(rerank(key)[:-60])
    for _ in range(60):
        await asyncio.sleep(1)
        writer.write(b" ")


async def _silence(_writer: asyncio.StreamWriter, _: keys.MintedKey) -> None:
    await asyncio.sleep(3600)


async def _never_reads(writer: asyncio.StreamWriter, key: keys.MintedKey) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined] # every transport of a socket has it
    writer.write(rerank(key, documents=_LONG))
    await asyncio.sleep(3600)


KINDS: dict[str, Kind] = {
    "half a head": _half_head,
    "a dribbled body": _dribbled_body,
    "silence": _silence,
    "an answer that nobody reads": _never_reads,
}


async def _run(of_each: int) -> list[Bound]:
    key, other = keys.mint(), keys.mint()
    async with world(gateways=1, replicas=2) as made:
        await made.cluster.put(objects.api_key(key, name="key"), objects.api_key(other, name="other"))
        client = Client(lambda: made.gateways)
        for each in (key, other):
            await client.served(rerank(each))
        quiet = await _load(client, rerank(other), asyncio.ensure_future(asyncio.sleep(_QUIET_SECONDS)))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as attackers:
            slow = asyncio.get_running_loop().run_in_executor(
                attackers, _attack, made.gateways[0].port, key, of_each
            )
            busy = await _load(client, rerank(other), slow)
        client.close()
    lived = slow.result()
    before, after = percentile(quiet.seconds, 0.99), percentile(busy.seconds, 0.99)
    return [
        Bound("slow sockets", of_each * len(KINDS)),
        *(Bound(f"closed after: {kind}", seconds, _CLOSED_SECONDS, "s") for kind, seconds in lived.items()),
        Bound("requests of others meanwhile", sum(busy.outcomes.values())),
        Bound("of them failed", busy.failed + quiet.failed, 0),
        Bound("p99 of others before", before * 1000, None, "ms"),
        Bound("p99 of others meanwhile", after * 1000, None, "ms"),
        Bound("p99 ratio", after / before, 2),
    ]


async def _load(client: Client, request: bytes, during: "asyncio.Future[Any]") -> Tally:
    tally, stop = Tally(), asyncio.Event()
    during.add_done_callback(lambda _: stop.set())
    await client.steadily(request, tally, per_second=_PER_SECOND, until=stop)
    return tally


def _attack(port: int, key: keys.MintedKey, of_each: int) -> dict[str, float]:
    """In a process of its own, so that what it costs itself is not taken for the gateway's."""
    return uvloop.run(_open_all(port, key, of_each))


async def _open_all(port: int, key: keys.MintedKey, of_each: int) -> dict[str, float]:
    """Open all of them; the seconds until the last of each kind was closed by the gateway."""
    ports: dict[str, set[int]] = {kind: set() for kind in KINDS}
    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []
    started: dict[str, float] = {}
    for kind, behave in KINDS.items():
        for _ in range(of_each):
            writer = await _connected_to(port)
            await asyncio.sleep(1 / _OPENED_PER_SECOND)
            ports[kind].add(writer.get_extra_info("sockname")[1])
            writers.append(writer)
            tasks.append(asyncio.create_task(behave(writer, key)))
        started[kind] = time.monotonic()
    lived: dict[str, float] = {}
    end = time.monotonic() + 10 * _CLOSED_SECONDS
    while len(lived) < len(KINDS) and time.monotonic() < end:
        await asyncio.sleep(0.25)
        open_now = _connected(port)
        for kind, of_kind in ports.items():
            if kind not in lived and not of_kind & open_now:
                lived[kind] = time.monotonic() - started[kind]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for writer in writers:
        with contextlib.suppress(OSError):
            writer.transport.abort()
    return {kind: lived.get(kind, float("inf")) for kind in KINDS}


async def _connected_to(port: int) -> asyncio.StreamWriter:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    _, writer = await asyncio.open_connection(sock=sock, limit=1024)
    return writer


def _connected(port: int) -> set[int]:
    """The ports of the clients whose connections to `port` stand at its end."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, remote, state = line.split()[:4]
            if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                found.add(int(remote.rpartition(":")[2], 16))
    return found
