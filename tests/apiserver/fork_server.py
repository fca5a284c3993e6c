"""Starts the operator hundreds of times: forks it from a process that has imported it and done nothing else.

To import it takes two seconds of a core, and to start it after that a fraction. Each operator is a process
of its own, with an environment, arguments, random numbers and an event loop of its own.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from kubernetes.aio.config import kube_config

from tests.apiserver.operator_process import ROOT

_PR_SET_PDEATHSIG = 1


class Forked:
    """An operator's process. How it ended is not known, only that it did."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._end = select.poll()
        self._end.register(self._descriptor, select.POLLIN)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def poll(self) -> int | None:
        return 0 if self._end.poll(0) else None

    def wait(self, timeout: float | None = None) -> int:
        if not self._end.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError(f"process {self.pid} has not ended")
        return 0

    def send_signal(self, sig: int) -> None:
        with suppress(ProcessLookupError):  # it has ended, as subprocess.Popen has it too
            signal.pidfd_send_signal(self._descriptor, sig)


class ForkServer:
    """The process that forks. What it forked ends with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        path = os.pathsep.join(str(ROOT / part) for part in (".", "api", "operator", "gateway"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.apiserver.fork_server"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def launch(self, environment: Mapping[str, str], arguments: list[str], log: Path) -> Forked:
        """As `operator_process.launch`."""
        assert self._process.stdin
        assert self._process.stdout
        order = {"environment": dict(environment), "arguments": arguments, "log": str(log)}
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return Forked(int(self._process.stdout.readline()))


def _serve() -> None:
    from rerank_operator import main  # noqa: PLC0415  # the test process need not import it

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the kernel need not keep them
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(**order)
            main.main()
            return
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(environment: dict[str, str], arguments: list[str], log: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    sys.argv = ["rerank-operator", *arguments]
    os.environ.clear()
    os.environ.update(environment)
    # The only part of the environment that is read when a module is imported.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]


if __name__ == "__main__":
    _serve()
