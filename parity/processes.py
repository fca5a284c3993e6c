"""Programs that the suite starts and ends: each in its own process group, its output in a file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_POLL = 0.1


@dataclass(frozen=True)
class Answer:
    """An answer, its body parsed where it is JSON; `status` 0 where nobody answered."""

    status: int
    body: Any


class Process:
    """A running program; a context manager that kills it with everything that it started."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str], cwd: Path
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until a condition holds.

        Raises:
            RuntimeError: the program ended before, or the time is over; with the end of its output.
        """
        end = time.monotonic() + seconds
        while not condition():
            if self.exit_code is not None or time.monotonic() > end:
                tail = self.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"no {what} (exit code {self.exit_code}):\n{tail}")
            time.sleep(_POLL)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(url: str, body: Any = None, *, key: str = "", seconds: float = 120) -> Answer:
    """GET, or POST of a JSON body, with a bearer key."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return Answer(response.status, _content(response.read()))
    except urllib.error.HTTPError as error:
        return Answer(error.code, _content(error.read()))
    except OSError:
        return Answer(0, None)


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
