"""What the gateway's scheduling buys, in front of engines of a known pace (`bench.engine`).

An engine's step takes `STEP_SECONDS` and reads 8,192 tokens, some 32 of our documents. It sleeps through
them, so that four engines, a gateway and a client fit two cores and the figures are about waiting alone.
"""

import asyncio
import statistics

import uvloop

from bench import load, markdown, workload
from bench.load import Flood
from bench.workload import Gateway

STEP_SECONDS = 0.05
_HUGE = 2500
_SPLIT = 1000
_REPLICAS = (1, 2, 3, 4)
_TRIES = 5
_FLOOD_DOCUMENTS = 10
_FLOOD_SECONDS = 10.0
_OVERLOAD = 10
_PEAK_IN_FLIGHT = 32


def report() -> str:
    """Measure, and say it in Markdown."""
    return f"{_small_behind_huge()}\n{_splitting()}\n{_overload()}"


def _small_behind_huge() -> str:
    with workload.engines(1, step_seconds=STEP_SECONDS) as (engine,), workload.gateway([engine]) as gateway:
        found = {
            "the engine alone": uvloop.run(_steps_behind(engine.port, "none")),
            "through the gateway": uvloop.run(_steps_behind(gateway.program.port, gateway.key)),
        }
    return markdown.part(
        f"One document behind {_HUGE:,}, same key, one replica",
        f"A request of one document comes half a second after one of {_HUGE:,}. How many engine steps it\n"
        f"takes, median and worst of {_TRIES}. Goal: at most 2.",
        ("", "median", "worst"),
        [(who, f"{statistics.median(steps):.1f}", f"{max(steps):.1f}") for who, steps in found.items()],
    )


async def _steps_behind(port: int, key: str) -> list[float]:
    huge = workload.post(key, workload.documents(_HUGE))
    small = workload.post(key, workload.documents(1))
    found = []
    for _ in range(_TRIES):
        big = asyncio.create_task(load.once(port, huge))
        await asyncio.sleep(0.5)
        found.append(await load.once(port, small) / STEP_SECONDS)
        await big
    return found


def _splitting() -> str:
    seconds = {}
    for count in _REPLICAS:
        with (
            workload.engines(count, step_seconds=STEP_SECONDS) as replicas,
            workload.gateway(replicas) as gateway,
        ):
            request = workload.post(gateway.key, workload.documents(_SPLIT))
            seconds[count] = min(uvloop.run(_times(_TRIES, gateway.program.port, request)))
    return markdown.part(
        f"{_SPLIT:,} documents over several replicas",
        f"Best of {_TRIES}. Goal: each replica adds at least 0.85 of what the first one does.",
        ("replicas", "seconds", "times one replica", "for each replica"),
        [
            (str(count), f"{taken:.2f}", f"{seconds[1] / taken:.2f}", f"{seconds[1] / taken / count:.2f}")
            for count, taken in seconds.items()
        ],
    )


async def _times(count: int, port: int, request: bytes) -> list[float]:
    return [await load.once(port, request) for _ in range(count)]


def _overload() -> str:
    with workload.engines(1, step_seconds=STEP_SECONDS) as (engine,), workload.gateway([engine]) as gateway:
        request = workload.post(gateway.key, workload.documents(_FLOOD_DOCUMENTS))
        peak = uvloop.run(_peak(gateway, request))
        before = gateway.program.resident_bytes()
        flood = uvloop.run(
            load.flood(gateway.program.port, request, per_second=peak * _OVERLOAD, seconds=_FLOOD_SECONDS)
        )
        after = gateway.program.resident_bytes()
        again = uvloop.run(_peak(gateway, request))
    served, refused = flood.statuses[200], flood.statuses[503] + flood.statuses[429]
    goodput = served / flood.seconds
    return markdown.part(
        f"{_OVERLOAD} times more than the replica can do",
        f"Requests of {_FLOOD_DOCUMENTS} documents at {_OVERLOAD} times the peak rate for\n"
        f"{_FLOOD_SECONDS:.0f} s. Goals: goodput at least 0.9 of the peak, memory flat, every refusal with\n"
        "Retry-After.",
        ("", ""),
        [
            ("peak, requests/s", f"{peak:.0f}"),
            ("served under overload, requests/s", f"{goodput:.0f}, {goodput / peak:.2f} of the peak"),
            ("p99 of the served, ms", f"{_p99(flood) * 1000:.0f}"),
            ("refused (429, 503)", f"{refused}, {flood.without_retry_after} without Retry-After"),
            ("anything else", str(flood.statuses.total() - served - refused)),
            ("memory before and after, MiB", f"{before / 2**20:.0f}, {after / 2**20:.0f}"),
            ("peak afterwards, requests/s", f"{again:.0f}"),
        ],
    )


async def _peak(gateway: Gateway, request: bytes) -> float:
    result = await load.run(gateway.program.port, request, in_flight=_PEAK_IN_FLIGHT, requests=500)
    return result.requests / result.seconds


def _p99(flood: Flood) -> float:
    return flood.latencies[int(len(flood.latencies) * 0.99)] if flood.latencies else float("nan")
