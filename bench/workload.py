"""What clients send: texts of about a kilobyte, and a gateway with a key, a model and its replicas."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench import programs
from bench.programs import Program
from rerank_api import keys
from tests.rerank_gateway import objects

MODEL = "bench"
# Out of reach: what is measured is the counting.
_LIMITS = {
    "requestsPerMinute": 10**9,
    "documentsPerMinute": 10**9,
    "tokensPerMinute": 10**12,
    "concurrentRequests": 10**6,
}
_WORDS = (
    *("panda", "bear", "bamboo", "forest", "mountain"),
    *("river", "climate", "habitat", "species", "mammal"),
)


@dataclass(frozen=True)
class Gateway:
    """A gateway in front of replicas, and a key that it accepts."""

    program: Program
    key: str


def documents(count: int, *, start: int = 0) -> list[str]:
    """Texts like those that people rank: words, about 1,000 characters each, no two alike."""
    return [
        f"{number} " + " ".join(f"{_WORDS[(number + place) % 10]}{place}" for place in range(118))[:980]
        for number in range(start, start + count)
    ]


def post(key: str, texts: Sequence[str], *, query: str = "what is a panda") -> bytes:
    """A request for a ranking, as bytes of HTTP/1.1."""
    body = json.dumps({"model": MODEL, "query": query, "documents": list(texts)}).encode()
    head = (
        "POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nAccept: */*\r\nUser-Agent: bench\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def engines(count: int, *, step_seconds: float = 0.0) -> Iterator[list[Program]]:
    """So many replicas (`bench.engine`)."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                programs.started("-m", "bench.engine", str(port), f"--step-seconds={step_seconds}", port=port)
            )
            for port in [programs.free_port() for _ in range(count)]
        ]


@contextlib.contextmanager
def gateway(replicas: Sequence[Program]) -> Iterator[Gateway]:
    """Our gateway in front of `replicas`, from a folder of YAML."""
    minted = keys.mint()
    bodies = [objects.api_key(minted, limits=_LIMITS), objects.model(MODEL, repo=None)]
    for number, replica in enumerate(replicas):
        body = objects.endpoint_slice(["127.0.0.1"], port=replica.port, of=MODEL)
        body["metadata"]["name"] = f"{MODEL}-{number}"
        bodies.append(body)
    port, internal = programs.free_port(), programs.free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "all.yaml").write_text(yaml.safe_dump_all(bodies))
        ports = [f"--port={port}", f"--internal-port={internal}"]
        with programs.started("-m", "rerank_gateway", "--config-dir", folder, *ports, port=port) as program:
            yield Gateway(program, minted.text)
