"""What a request costs in the gateway, beside other proxies in the same run.

CPU is the process's own (user and system), so a busy machine disturbs it little; requests a second and
latency depend on the machine and are worth comparing within one run only. What the kernel does in a request's
name, receiving and sending, is counted in it, and said apart.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import uvloop

from bench import load, markdown, proxies, workload
from bench.load import Result
from bench.programs import Program

SIZES = {"10 KB": 10, "100 KB": 100, "1 MB": 1000}  # documents of about 1 KB each
REQUESTS = {"10 KB": 2000, "100 KB": 600, "1 MB": 100}
IN_FLIGHT = (1, 16, 64)
MOST_DOCUMENTS = 16_000  # at once; more is past what the gateway lets in, by bytes and by the queue
OURS = "gateway"
_WHAT = """\
Documents of about 1 KB each; the engine answers at once, and repeats every document to the others, as vLLM
does, but not to the gateway, which asks our runtime to leave them out.
The gateway checks the key and its limits, parses, validates, balances, splits, rebuilds, merges and logs.
The FastAPI proxy passes bytes and checks nothing. LiteLLM runs its hosted_vllm provider with a master key:
its virtual keys need PostgreSQL and an engine that Prisma downloads when it starts.
Goals: at most 250 µs for 10 KB, 2.5 ms for 1 MB. [Where the rest goes](PROFILE.md).
"""


@dataclass(frozen=True)
class Row:
    """One measurement. `cpu_us`, of which `kernel_us`, None: of the engine, whose cost is of no interest."""

    who: str
    size: str
    in_flight: int
    cpu_us: float | None
    kernel_us: float | None
    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Server:
    """Something that answers `POST /v1/rerank`. A slow one gets a `share` of the usual number of requests."""

    who: str
    program: Program
    key: str
    share: float = 1.0


def _measure() -> list[Row]:
    """Every size and concurrency, the servers in turn."""
    rows: list[Row] = []
    with workload.engines(1) as (engine,), _servers(engine) as servers:
        for size, count in SIZES.items():
            texts = workload.documents(count)
            for in_flight in IN_FLIGHT:
                if in_flight * count > MOST_DOCUMENTS:
                    continue
                direct = _run(engine, workload.post("none", texts), in_flight, REQUESTS[size])
                rows.append(_row("engine alone", size, in_flight, (None, None), direct))
                for server in servers:
                    request = workload.post(server.key, texts)
                    total = max(in_flight, int(REQUESTS[size] * server.share))
                    _run(server.program, request, in_flight, max(1, total // 10))
                    before = _spent_us(server.program)
                    result = _run(server.program, request, in_flight, total)
                    cpu, kernel = (
                        (now - then) / result.requests
                        for now, then in zip(_spent_us(server.program), before, strict=True)
                    )
                    rows.append(_row(server.who, size, in_flight, (cpu, kernel), result))
                    print(rows[-1], flush=True)
    return rows


def report() -> str:
    """Measure, and say it in Markdown."""
    return f"{_WHAT}\n{_table(_measure())}"


def _table(rows: list[Row]) -> str:
    ours = {(row.size, row.in_flight): row.cpu_us for row in rows if row.who == OURS}
    header = (
        "body",
        "in flight",
        "server",
        "CPU µs/request",
        "in the kernel",
        "times ours",
        "requests/s",
        "p50 ms",
        "p99 ms",
    )
    cells = []
    for row in rows:
        own, cost = ours[row.size, row.in_flight], row.cpu_us
        times = f"{cost / own:.1f}" if cost and own else ""
        figures = (f"{row.per_second:.0f}", f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}")
        cpu = "" if cost is None else f"{cost:.0f}"
        kernel = "" if row.kernel_us is None else f"{row.kernel_us:.0f}"
        cells.append((row.size, str(row.in_flight), row.who, cpu, kernel, times, *figures))
    return markdown.table(header, cells)


@contextlib.contextmanager
def _servers(engine: Program) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(workload.gateway([engine]))
        plain = stack.enter_context(proxies.plain(engine))
        servers = [Server(OURS, gateway.program, gateway.key), Server("FastAPI + httpx", plain, "none")]
        if proxies.litellm_is_installed():
            program, key = stack.enter_context(proxies.litellm(engine))
            servers.append(Server("LiteLLM proxy", program, key, share=0.1))
        yield servers


def _run(program: Program, request: bytes, in_flight: int, requests: int) -> Result:
    return uvloop.run(load.run(program.port, request, in_flight=in_flight, requests=requests))


def _spent_us(program: Program) -> tuple[float, float]:
    """All of its CPU time so far and the kernel's share, in microseconds."""
    return program.cpu_seconds() * 1e6, program.kernel_seconds() * 1e6


def _row(who: str, size: str, in_flight: int, cost: tuple[float | None, float | None], result: Result) -> Row:
    return Row(
        who,
        size,
        in_flight,
        *cost,
        per_second=result.requests / result.seconds,
        p50_ms=result.percentile(0.5) * 1000,
        p99_ms=result.percentile(0.99) * 1000,
    )
