"""How much memory a gateway needs for what it knows: keys and models."""

import hashlib
import tempfile
from pathlib import Path

import yaml

from bench import markdown, programs
from rerank_api import keys
from tests.rerank_gateway import objects

_KEYS = 10_000
_MODELS = 2_000


def report() -> str:
    """Measure, and say it in Markdown."""
    empty = _resident(0, 0)
    full = _resident(_KEYS, _MODELS)
    return markdown.part(
        f"Memory with {_KEYS:,} keys and {_MODELS:,} models, each with two replicas",
        "Goal: at most 250 MiB.",
        ("nothing, MiB", "all of it, MiB"),
        [(f"{empty / 2**20:.0f}", f"{full / 2**20:.0f}")],
    )


def _resident(key_count: int, model_count: int) -> int:
    bodies = [objects.api_key(keys.mint(), name=f"key-{number}") for number in range(key_count)]
    for number in range(model_count):
        digest = hashlib.sha256(str(number).encode()).digest()
        addresses = [f"127.{digest[0]}.{digest[1]}.{1 + digest[2] % 250}", f"127.{digest[3]}.{digest[4]}.7"]
        bodies.append(objects.model(f"model-{number}", repo=f"org/model-{number}"))
        bodies.append(objects.endpoint_slice(addresses, port=8000, of=f"model-{number}"))
    port, internal = programs.free_port(), programs.free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "all.yaml").write_text(yaml.dump_all(bodies, Dumper=yaml.CSafeDumper))
        ports = [f"--port={port}", f"--internal-port={internal}"]
        with programs.started("-m", "rerank_gateway", "--config-dir", folder, *ports, port=port) as program:
            return program.resident_bytes()
