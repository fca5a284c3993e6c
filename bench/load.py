"""A client that costs little: one prepared request again and again over a fixed number of connections."""

import asyncio
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Requests served, seconds that took, and each one's latency in seconds, sorted."""

    requests: int
    seconds: float
    latencies: list[float]

    def percentile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


async def run(port: int, request: bytes, *, in_flight: int, requests: int) -> Result:
    """Send `requests` requests, `in_flight` at a time. Anything but 200 is an error."""
    latencies: list[float] = []
    left = requests

    async def worker() -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        while left > 0:
            left -= 1
            start = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - start)
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return Result(len(latencies), time.perf_counter() - start, sorted(latencies))
