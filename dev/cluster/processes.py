"""Long-lived processes that outlive the command which started them: pid files, logs, an end.

A pid alone proves nothing after a crash or a reboot, when another process may have it. The pid
file also keeps the kernel's start time of the process (proc(5), field 22), which never repeats
for the same pid within one boot, and the boot's own id.
"""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dev.cluster.errors import ClusterError
from dev.cluster.paths import Layout
from dev.cluster.waiting import wait_until

STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Component:
    """One process of the cluster: its name, its command line and what it needs around it."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    configuration: str = ""
    """Content of its configuration files: when it changes, the process is restarted."""

    def fingerprint(self) -> str:
        """Return a hash of everything that it was started with."""
        parts = [list(self.arguments), sorted(self.environment.items()), self.configuration]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def boot_id() -> str:
    """Return the kernel's random id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot, or None when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may itself hold spaces and parentheses.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class Record:
    """What a pid file says about the process that it was written for."""

    pid: int
    start: str
    boot: str
    fingerprint: str

    def alive(self) -> bool:
        """Return whether that very process still runs."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # reap it where it was our own child
        return self.boot == boot_id() and start_time(self.pid) == self.start


def read_record(path: Path) -> Record | None:
    """Read a pid file. None when there is none, or when a crash left it cut short."""
    try:
        return Record(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def pid_file(layout: Layout, name: str) -> Path:
    return layout.pids / f"{name}.json"


def log_file(layout: Layout, name: str) -> Path:
    return layout.logs / f"{name}.log"


def running(layout: Layout, name: str) -> bool:
    """Return whether the component's process lives."""
    record = read_record(pid_file(layout, name))
    return record is not None and record.alive()


def ensure(layout: Layout, component: Component, *, before: Callable[[], None] | None = None) -> bool:
    """Make the component run as described. Return whether it had to be started.

    Args:
        layout: where its files are.
        component: what should run.
        before: called before a start, when no such process is left.
    """
    record = read_record(pid_file(layout, component.name))
    if record is not None and record.alive():
        if record.fingerprint == component.fingerprint():
            return False
        stop(layout, component.name)
    if before is not None:
        before()
    _start(layout, component)
    return True


def _start(layout: Layout, component: Component) -> None:
    log = log_file(layout, component.name)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("wb") as output:
        process = subprocess.Popen(
            component.arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=layout.root,
            env={**os.environ, **component.environment},
            start_new_session=True,  # survives the shell and the make that started us
        )
    start = start_time(process.pid)
    # It outlives us on purpose: without this, the interpreter would warn that it still runs.
    process.returncode = 0
    if start is None:
        raise ClusterError(f"{component.name} ended at once\n{tail(layout, component.name)}")
    record = Record(process.pid, start, boot_id(), component.fingerprint())
    path = pid_file(layout, component.name)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record.__dict__))
    temporary.replace(path)


def stop(layout: Layout, name: str) -> None:
    """End the component's process if it is still ours, and forget it. Idempotent."""
    _end(layout, name, (signal.SIGTERM, signal.SIGKILL))


def kill(layout: Layout, name: str) -> None:
    """End it as a node's death would, in the middle of whatever it does, and forget it. Idempotent."""
    _end(layout, name, (signal.SIGKILL,))


def _end(layout: Layout, name: str, numbers: Sequence[signal.Signals]) -> None:
    """Send each signal when the process does not end of the one before within the limit."""
    path = pid_file(layout, name)
    record = read_record(path)
    if record is not None:
        _signal(record, numbers)
    path.unlink(missing_ok=True)


def _signal(record: Record, numbers: Sequence[signal.Signals]) -> None:
    for number in numbers:
        if not record.alive():
            return
        with suppress(ProcessLookupError):
            os.kill(record.pid, number)
        with suppress(ClusterError):
            wait_until(f"end of process {record.pid}", lambda: not record.alive(), seconds=STOP_SECONDS)
    if record.alive():
        raise ClusterError(f"process {record.pid} does not end, not even by SIGKILL")


def tail(layout: Layout, name: str, lines: int = 25) -> str:
    """Return the end of a component's log, headed by where the rest is."""
    path = log_file(layout, name)
    try:
        text = path.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        text = ["(no log)"]
    return "\n".join([f"--- end of {path}", *text])


def require(layout: Layout, name: str) -> None:
    """Raise with the component's last words when it has ended."""
    if not running(layout, name):
        raise ClusterError(f"{name} ended\n{tail(layout, name)}")
