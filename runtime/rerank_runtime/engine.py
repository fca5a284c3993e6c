"""The command line and environment of `vllm serve` for a plan. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rerank_runtime import guard
from rerank_runtime.options import Device
from rerank_runtime.serve_plan import ServePlan

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
    # Bound threads ("auto") would take whole physical cores that the container's CPU share does not have.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Threads that spin until the others are done take the time of those that compute, wherever cores are
    # shared: 49 instead of 28 ms of processor time a document (bench/ENGINE.md).
    "OMP_WAIT_POLICY": "PASSIVE",
}
# What vLLM must not be told by the environment that a pod happens to have.
_REMOVED = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY")

# Threads that tokenise: with one, a small request waits for every document of a large one before it, and the
# large one takes longer, too (bench/ENGINE.md).
_RENDERERS = {Device.CPU: 2, Device.CUDA: 4}
# What vLLM is given for a cache on a CPU where the model keeps none; unset, it claims 92 % of the node's
# memory and does not start where less is free.
_NO_CACHE_BYTES = 2**28


def command(
    plan: ServePlan,
    *,
    model: Path,
    name: str,
    device: Device,
    host: str,
    port: int,
    template_path: Path | None = None,
    tokenizer: Path | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """`vllm serve` for a plan. Every value is one `--flag=value` item, so that none can become a flag of its
    own.

    Args:
        plan: The plan.
        model: The model's directory.
        name: The name that requests use.
        device: What the model runs on.
        host: Address to listen on.
        port: Port to listen on.
        template_path: Where the caller has written the plan's template, if it has one.
        tokenizer: Directory of the tokenizer, where it is not the model's.
        extra: Further flags, each one item. They come first: of a flag that is given twice, the last counts.

    Raises:
        ValueError: The plan has a template and no file was named for it.
    """
    if plan.template is not None and template_path is None:
        raise ValueError("the plan has a template and no file was named for it")
    arguments = [
        "vllm",
        "serve",
        str(model),
        *extra,
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
        f"--renderer-num-workers={_RENDERERS[device]}",
    ]
    if plan.template is not None:
        arguments.append(f"--chat-template={template_path}")
    if tokenizer is not None:
        arguments.append(f"--tokenizer={tokenizer}")
    if plan.hf_overrides:
        arguments.append(f"--hf-overrides={json.dumps(plan.hf_overrides)}")
    if plan.pooler_config:
        arguments.append(f"--pooler-config={json.dumps(plan.pooler_config)}")
    if plan.split > 1:
        arguments.append(f"--tensor-parallel-size={plan.split}")
    if plan.gpu_memory_utilization is not None:
        arguments.append(f"--gpu-memory-utilization={plan.gpu_memory_utilization}")
    if plan.remote_code:
        arguments.append("--trust-remote-code")
    if device is Device.CPU:
        arguments += [
            # Compiling takes minutes and a compiler in the image, and gains nothing (bench/ENGINE.md).
            "--enforce-eager",
            f"--kv-cache-memory-bytes={plan.kv_cache_bytes or _NO_CACHE_BYTES}",
        ]
    return arguments


def environment(inherited: Mapping[str, str], *, device: Device, internal_token: str) -> dict[str, str]:
    """VLLM's environment: what was inherited wins over defaults, except for what the guard needs."""
    defaults = _ENVIRONMENT | (_CPU_ENVIRONMENT if device is Device.CPU else {})
    kept = {name: value for name, value in inherited.items() if name not in _REMOVED}
    return defaults | kept | {guard.INTERNAL_TOKEN: internal_token}
