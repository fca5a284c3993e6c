"""`python -m parity.forked_vllm SOCKET` in the runtime's environment: imports vLLM once and forks a server
for each `vllm serve` that `vllm_program` asks for, which so starts in seconds.

One connection is one server: a JSON line with arguments and environment comes with two file descriptors for
its output; the exit code goes back. A caller that goes away ends its server.

An engine writes down the token ids of every prompt that it is given, a JSON list on each line of the file
that PARITY_PROMPTS names.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

# What the three processes of a server need, all of it imported here.
import vllm.entrypoints.cli.serve
import vllm.entrypoints.openai.api_server
import vllm.v1.engine.core
import vllm.v1.worker.cpu_worker  # noqa: F401 - for the engine, which names it only
from vllm.entrypoints.cli.main import main as run_vllm
from vllm.model_executor.models import registry
from vllm.platforms import current_platform
from vllm.v1.engine.core import EngineCore

from parity.vllm_program import PROMPTS
from rerank_runtime import vllm_plugin


def main() -> None:
    """Serve until SIGTERM."""
    path = Path(sys.argv[1])
    _let_fork()
    _record_prompts()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _let_fork() -> None:
    """Let a server fork its engine and worker too."""
    # As in a pod; nothing has used OpenMP yet here.
    vllm_plugin.fork_workers(type(current_platform))
    vllm_plugin.sleep_between_messages()
    # Asked in a process of its own for the sake of CUDA.
    registry._run_in_subprocess = lambda function: function()  # noqa: SLF001 - vLLM's version is pinned


def _record_prompts() -> None:
    """After all rendering, tokenising and cutting: what the engine schedules."""
    take = EngineCore.preprocess_add_request

    def record(self: Any, request: Any) -> Any:
        with Path(os.environ[PROMPTS]).open("a", encoding="utf-8") as file:
            print(json.dumps(request.prompt_token_ids), file=file)
        return take(self, request)

    EngineCore.preprocess_add_request = record


def _serve(connection: socket.socket) -> None:
    with connection:
        content, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if len(descriptors) != 2:
            return
        order = json.loads(content)
        pid = os.fork()
        if pid == 0:
            _become_server(order, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        ended = threading.Event()
        threading.Thread(target=_end_with, args=(connection, pid, ended), daemon=True).start()
        _, status = os.waitpid(pid, 0)
        ended.set()
        _kill(pid)
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode())


def _end_with(connection: socket.socket, pid: int, ended: threading.Event) -> None:
    """End the server when its caller is gone, pass on its SIGTERM."""
    while not ended.is_set():
        try:
            asked = connection.recv(1)
        except OSError:
            asked = b""
        if ended.is_set():
            return
        if not asked:
            _kill(pid)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _become_server(order: dict[str, Any], descriptors: list[int]) -> None:
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, number)
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.argv = order["arguments"]
        run_vllm()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, this process is the server's and ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
