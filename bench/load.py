"""A client that costs little: prepared requests over raw connections."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """Requests served, seconds that took, and each one's latency in seconds, sorted."""

    requests: int
    seconds: float
    latencies: list[float]

    def percentile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


@dataclass
class Flood:
    """What became of requests that came at a fixed rate. `latencies` of those answered 200, in seconds.

    Status 0 is a connection that broke before there was an answer.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    seconds: float = 0.0


async def run(port: int, request: bytes, *, in_flight: int, requests: int) -> Result:
    """Send `requests` requests, `in_flight` at a time, over kept connections.

    Raises:
        RuntimeError: an answer other than 200.
    """
    latencies: list[float] = []
    left = requests

    async def worker() -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        while left > 0:
            left -= 1
            start = time.perf_counter()
            head = await ask(reader, writer, request)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            latencies.append(time.perf_counter() - start)
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return Result(len(latencies), time.perf_counter() - start, sorted(latencies))


async def once(port: int, request: bytes) -> float:
    """One request over a connection of its own; the seconds until its answer was there."""
    return (await run(port, request, in_flight=1, requests=1)).latencies[0]


async def flood(port: int, request: bytes, *, per_second: float, seconds: float) -> Flood:
    """Send requests at a fixed rate, whatever becomes of the earlier ones, and wait for every answer."""
    found = Flood()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one() -> None:
        start = time.perf_counter()
        reader, writer = (
            idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        )
        try:
            head = (await ask(reader, writer, request)).lower()
        except (ConnectionError, asyncio.IncompleteReadError):
            found.statuses[0] += 1
            return
        status = int(head.split(b" ", 2)[1])
        found.statuses[status] += 1
        if status == 200:
            found.latencies.append(time.perf_counter() - start)
        elif b"\r\nretry-after:" not in head:
            found.without_retry_after += 1
        if b"connection: close" in head:
            writer.close()
        else:
            idle.append((reader, writer))

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
            group.create_task(one())
    for _, writer in idle:
        writer.close()
    found.seconds = time.perf_counter() - start
    found.latencies.sort()
    return found


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Send a request, read all of its answer, and return the answer's head."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head
