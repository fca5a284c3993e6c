"""The figures of one engine: how long a small request takes, alone and beside a large one, and what
processor time it all costs.
"""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.vllm import texts
from bench.vllm.serving import Engine

BULK = 128
# As many as the gateway has on their way to a replica.
IN_FLIGHT = 2
_ALONE = 30
_SECONDS = 8.0
_RATES = (0, 2, 5)


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Args:
        alone_ms: Median latency of one document, with nothing beside it.
        per_second: Documents a second of a large request, in chunks.
        beside_ms: Median latency of one document meanwhile.
        beside_worst_ms: The worst.
        cpu_ms: Processor time of the engine for each document of the large request.
        busy: Processor time a second, at so many one-document requests a second. Empty where not asked for.
    """

    alone_ms: float
    per_second: float
    beside_ms: float
    beside_worst_ms: float
    cpu_ms: float
    busy: dict[int, float]


def measure(engine: Engine, *, query: str, chunk: int, few: bool) -> Figures:
    """Take the figures of an engine that serves.

    Args:
        engine: The engine.
        query: The query.
        chunk: Documents of one request of the large one.
        few: Whether to see what few requests cost, too; half a minute.
    """
    _bulk(engine, query, texts.documents(64), chunk)  # whatever happens once happens now
    alone = [_one(engine, query) for _ in range(_ALONE)]
    busy = {rate: _busy(engine, query, rate) for rate in (_RATES if few else ())}
    latencies: list[float] = []
    stop = threading.Event()

    def small() -> None:
        while not stop.wait(0.2):
            latencies.append(_one(engine, query))

    beside = threading.Thread(target=small)
    before = engine.cpu_seconds()
    beside.start()
    took = _bulk(engine, query, texts.documents(BULK), chunk)
    stop.set()
    beside.join()
    return Figures(
        alone_ms=statistics.median(alone) * 1000,
        per_second=BULK / took,
        beside_ms=statistics.median(latencies) * 1000,
        beside_worst_ms=max(latencies) * 1000,
        cpu_ms=(engine.cpu_seconds() - before) / BULK * 1000,
        busy=busy,
    )


def _busy(engine: Engine, query: str, rate: int) -> float:
    time.sleep(2)  # whoever spins after the last request has ended
    before, start = engine.cpu_seconds(), time.monotonic()
    for number in range(int(rate * _SECONDS)):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        _one(engine, query)
    time.sleep(max(0.0, start + _SECONDS - time.monotonic()))
    return (engine.cpu_seconds() - before) / (time.monotonic() - start)


def _bulk(engine: Engine, query: str, documents: Sequence[str], chunk: int) -> float:
    """Seconds that the documents take in chunks, a few of which are on their way at a time."""
    chunks = [documents[at : at + chunk] for at in range(0, len(documents), chunk)]
    start = time.monotonic()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(lambda part: _ask(engine, query, part), chunks))
    return time.monotonic() - start


def _one(engine: Engine, query: str) -> float:
    start = time.monotonic()
    _ask(engine, query, ["the panda eats bamboo in the forest of the reserve"])
    return time.monotonic() - start


def _ask(engine: Engine, query: str, documents: Sequence[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=600)
    try:
        body = json.dumps({"model": "bench", "query": query, "documents": list(documents)})
        connection.request("POST", "/v1/rerank", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {content[:500]!r}")
