"""The programs that are measured: started on free ports, found ready, stopped, and what they cost."""

import contextlib
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TICK = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 90


@dataclass(frozen=True)
class Program:
    """A running program and the port that it listens on."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """User and system time so far, of the program and of its children that live."""
        return sum(sum(_cpu_seconds(pid)) for pid in _family(self.pid))

    def kernel_seconds(self) -> float:
        """The system time alone: to receive and to send, mostly."""
        return sum(_cpu_seconds(pid)[1] for pid in _family(self.pid))

    def resident_bytes(self) -> int:
        """Memory in use."""
        return sum(_resident(pid) for pid in _family(self.pid))

    def peak_bytes(self) -> int:
        """The most memory that it ever had in use; its children do not count."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def started(
    *arguments: str, port: int, python: str = sys.executable, environment: dict[str, str] | None = None
) -> Iterator[Program]:
    """Run `python arguments…` from the root of the repository until the block ends.

    Args:
        arguments: such as "-m", "bench.engine".
        port: that it will listen on; the block begins when it does.
        python: the interpreter, of another environment where the program needs one.
        environment: variables besides our own.

    Raises:
        RuntimeError: it ended, or did not listen in time.
    """
    path = os.pathsep.join(str(ROOT / folder) for folder in (".", "api", "gateway"))
    process = subprocess.Popen(
        [python, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        stdout=subprocess.DEVNULL,
    )
    try:
        _until_it_listens(process, port)
        yield Program(process.pid, port)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.kill()
        process.wait()


def machine() -> str:
    """The processor, how many of it, and how busy it is already."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    return f"{os.cpu_count()} × {model}, load average {os.getloadavg()[0]:.0f} at the start"


def _until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args!r} did not start")
        time.sleep(0.05)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICK, int(fields[12]) / TICK


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
