"""The vLLM process under pid 1: started in its own process group, its log passed on, its end told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import BinaryIO

# Enough for the traceback of each of vLLM's processes.
TAIL_LINES = 400
# Time for the log's last lines to arrive once the process is gone.
_LOG_GRACE = 2.0
# Of vLLM's logger ("(EngineCore pid=7) ERROR 11-22 …") and of uvicorn's ("ERROR:    Exception in ASGI …").
_ERROR = re.compile(rb"^(\([\w-]+ pid=\d+\) )?(ERROR|CRITICAL)\b")
# What a process that waits says again and again (vllm/distributed/device_communicators/shm_broadcast.py).
_WAITING = re.compile(rb"No available shared memory broadcast block|core engine proc\(s\) to (connect|start)")


class EngineProcess:
    """A running engine. Made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, output: BinaryIO) -> None:
        self._process = process
        self._output = output
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.lines = 0
        """Lines of its log that tell of work."""
        self.error_lines = 0
        """Those of them that tell of an error."""
        self._log = asyncio.create_task(self._pass_on())

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> EngineProcess:
        """Start the engine.

        Raises:
            OSError: the program cannot be run.
        """
        # Not asyncio's own pipe: before Python 3.13 the end of a process is told only once every process that
        # holds its pipe has ended too.
        reading, writing = os.pipe()
        output = os.fdopen(reading, "rb", buffering=0)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError:
            output.close()
            raise
        finally:
            os.close(writing)
        return cls(process, output)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def tail(self) -> list[str]:
        """The last lines of the engine's log."""
        return list(self._tail)

    async def wait(self) -> int:
        """Wait for the end and return the exit code; negative where a signal ended it.

        vLLM's worker processes outlive a killed server for a while and hold its log open: they end here.
        """
        code = await self._process.wait()
        self._signal_group(signal.SIGKILL)
        await asyncio.wait({self._log}, timeout=_LOG_GRACE)
        self._log.cancel()
        await asyncio.wait({self._log})
        return code

    def terminate(self) -> None:
        """Ask vLLM to shut down; it ends its own workers."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """End vLLM and everything that it started."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _pass_on(self) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._output
        )
        try:
            await self._keep(stream)
        finally:
            transport.close()

    async def _keep(self, stream: asyncio.StreamReader) -> None:
        partial = b""
        while chunk := await stream.read(65536):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            *lines, partial = (partial + chunk).split(b"\n")
            self._tail.extend(line.decode(errors="replace") for line in lines)
            self.lines += sum(not _WAITING.search(line) for line in lines)
            self.error_lines += sum(bool(_ERROR.match(line)) for line in lines)
            partial = partial[-65536:]
        if partial:
            self._tail.append(partial.decode(errors="replace"))


def reap(spare: int) -> None:
    """Collect dead processes that were handed to pid 1, except the engine itself, whose exit code is waited
    for.
    """
    while True:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if dead is None or dead.si_pid == spare:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(dead.si_pid, os.WNOHANG)
