"""The command line and environment of `vllm serve` for a plan. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rerank_runtime import guard
from rerank_runtime.plan import Device, ServePlan

PORT = 8000

_ENVIRONMENT = {
    # Longer than any caller keeps an idle connection, so that it is never closed under a request.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
}
_CPU_ENVIRONMENT = {
    # GiB for caches; unset, vLLM claims 92 % of the node's memory and does not start where less is free.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Bound threads ("auto") would take whole physical cores that the container's CPU share does not have.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
# What vLLM must not be told by the environment that a pod happens to have.
_REMOVED = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY")


def command(plan: ServePlan, *, model: Path, name: str, device: Device, host: str, port: int) -> list[str]:
    """`vllm serve` for a plan. Every value is one `--flag=value` item, so that none can become a flag of its
    own.
    """
    arguments = [
        "vllm",
        "serve",
        str(model),
        f"--served-model-name={name}",
        f"--host={host}",
        f"--port={port}",
        "--runner=pooling",
        f"--convert={plan.convert}",
        f"--dtype={plan.dtype}",
        f"--max-model-len={plan.context_length}",
        "--load-format=safetensors",
        f"--middleware={guard.__name__}.{guard.Guard.__name__}",
        "--disable-uvicorn-access-log",
        # Counted per API server process: the guard's count of requests in flight needs exactly one.
        "--api-server-count=1",
    ]
    if plan.hf_overrides:
        arguments.append(f"--hf-overrides={json.dumps(plan.hf_overrides)}")
    if device is Device.CPU:
        # Needs no compiler in the image, and gains nothing on encoders of this size.
        arguments.append("--enforce-eager")
    return arguments


def environment(inherited: Mapping[str, str], *, device: Device, internal_token: str) -> dict[str, str]:
    """VLLM's environment: what was inherited wins over defaults, except for what the guard needs."""
    defaults = _ENVIRONMENT | (_CPU_ENVIRONMENT if device is Device.CPU else {})
    kept = {name: value for name, value in inherited.items() if name not in _REMOVED}
    return defaults | kept | {guard.INTERNAL_TOKEN: internal_token}
