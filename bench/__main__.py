"""`make bench`: what a request costs in the gateway, beside a plain proxy in the same run.

CPU is the process's own (user and system), so a busy machine disturbs it little; requests a second and
latency depend on the machine and are worth comparing within one run only.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop
import yaml

from bench import load
from bench.engine import SIZES, documents
from rerank_api import keys
from tests.rerank_gateway import objects

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "RESULTS.md"
REQUESTS = {"10 KB": 2000, "100 KB": 800, "1 MB": 100}
IN_FLIGHT = (1, 16, 64)
PACKAGES = ("uvicorn", "uvloop", "httptools", "aiohttp", "orjson", "fastapi", "httpx2")
TRIED = (
    "Measured side by side on a busy machine, 10 KB, 16 in flight, with a bare ASGI proxy around aiohttp "
    "(180–280 µs) in the same run: through aiohttp, with a hook that says whether a connection was reused, "
    "470–670 µs; with an HTTP client of our own 310–360 µs; without a task that waits for the client to "
    "leave and a deadline around bodies that are there already 250–310 µs. About 100 µs of it is what the "
    "gateway does itself (key, JSON in and out twice, checks, balancing, metrics, log line). Of a "
    "megabyte's cost about 2 ms is JSON, half of that the documents that vLLM sends back; the rest is "
    "moving bytes: the plain proxy, which parses nothing, costs as much."
)
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """One measurement."""

    who: str
    size: str
    in_flight: int
    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measure and write `bench/RESULTS.md`."""
    minted = keys.mint()
    engine, plain, gateway, internal = (free_port() for _ in range(4))
    with tempfile.TemporaryDirectory() as folder:
        bodies = (
            objects.api_key(minted),
            objects.model("bench", repo=None),
            objects.endpoint_slice(["127.0.0.1"], port=engine, of="bench"),
        )
        Path(folder, "all.yaml").write_text(yaml.safe_dump_all(bodies))
        ports = ["--port", str(gateway), "--internal-port", str(internal)]
        with (
            program(engine, "-m", "bench.engine", str(engine)),
            program(
                plain, "-m", "bench.plain_proxy", BENCH_PORT=plain, BENCH_ENGINE=f"http://127.0.0.1:{engine}"
            ) as p,
            program(gateway, "-m", "rerank_gateway", "--config-dir", folder, *ports) as g,
        ):
            rows = uvloop.run(
                measure({"gateway": (gateway, g), "FastAPI + httpx": (plain, p)}, engine, minted.text)
            )
    RESULTS.write_text(report(rows))
    print(RESULTS.read_text())


async def measure(servers: dict[str, tuple[int, int]], engine: int, key: str) -> list[Row]:
    """Every size and concurrency, the servers in turn."""
    rows = []
    for size, count in SIZES.items():
        request = post(key, count)
        for in_flight in IN_FLIGHT:
            direct = await load.run(engine, request, in_flight=in_flight, requests=REQUESTS[size])
            rows.append(Row("engine alone", size, in_flight, 0, *figures(direct)))
            for who, (port, pid) in servers.items():
                await load.run(port, request, in_flight=in_flight, requests=REQUESTS[size] // 10)
                before = cpu_seconds(pid)
                result = await load.run(port, request, in_flight=in_flight, requests=REQUESTS[size])
                cost = (cpu_seconds(pid) - before) / result.requests * 1e6
                rows.append(Row(who, size, in_flight, cost, *figures(result)))
                print(rows[-1], flush=True)
    return rows


def figures(result: load.Result) -> tuple[float, float, float]:
    return (
        result.requests / result.seconds,
        result.percentile(0.5) * 1000,
        result.percentile(0.99) * 1000,
    )


def post(key: str, count: int) -> bytes:
    """A rerank request with `count` documents of about 1 KB."""
    fields = {"model": "bench", "query": "what is a panda", "documents": documents(count)}
    body = json.dumps(fields).encode()
    head = (
        "POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nAccept: */*\r\nUser-Agent: bench\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def report(rows: list[Row]) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [
        "# Benchmarks",
        "",
        f"{time.strftime('%Y-%m-%d')}, {machine()}, Python {platform.python_version()}, {versions}.",
        "Written by `make bench`. Documents of about 1 KB each; the engine answers at once, with every",
        "document in its answer, as vLLM does. The gateway checks the key, parses, validates, balances,",
        "rebuilds and logs; the plain proxy passes bytes. Client, engine and servers share the machine, so",
        "compare within the table only.",
        "",
        f"Goals: at most 250 µs for 10 KB, 2.5 ms for 1 MB. {TRIED}",
        "",
        "| body | in flight | server | CPU µs/request | ratio to plain | requests/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plain = {(row.size, row.in_flight): row.cpu_us for row in rows if row.who == "FastAPI + httpx"}
    for row in rows:
        ratio = f"{row.cpu_us / plain[row.size, row.in_flight]:.2f}" if row.cpu_us else ""
        cost = f"{row.cpu_us:.0f}" if row.cpu_us else ""
        lines.append(
            f"| {row.size} | {row.in_flight} | {row.who} | {cost} | {ratio} "
            f"| {row.per_second:.0f} | {row.p50_ms:.2f} | {row.p99_ms:.2f} |"
        )
    return "\n".join(lines) + "\n"


def machine() -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} × {model}, load average {os.getloadavg()[0]:.0f}"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def program(port: int, *arguments: str, **environment: object) -> Iterator[int]:
    """A Python program that listens on `port`; yields its pid."""
    path = os.pathsep.join(str(ROOT / folder) for folder in (".", "api", "gateway"))
    extra = {name: str(value) for name, value in environment.items()}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **extra},
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(arguments)} did not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
