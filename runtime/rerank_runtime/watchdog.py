"""Is the engine at work, or does it hang? Judged from its log and its processor time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# Of a core: a process that waits for nothing but a lock still wakes up now and then.
_IDLE_SHARE = 0.05


@dataclass(frozen=True)
class Sample:
    """What an engine has done up to a moment.

    Args:
        time: Seconds of a clock that only goes forward.
        log_lines: Lines that it has written.
        cpu_seconds: Processor time of all its processes.
    """

    time: float
    log_lines: int
    cpu_seconds: float


class Watchdog:
    """Measures for how long an engine has done nothing.

    An engine that loads from a slow disk, compiles or warms up uses its processor or writes to its log; one
    that waits for a dead worker, a lock or a lost network disk does neither.
    """

    def __init__(self, start: Sample) -> None:
        self._last = start
        self._active = start.time

    def idle_seconds(self, sample: Sample) -> float:
        """Seconds since its last sign of work, as of this sample."""
        elapsed = sample.time - self._last.time
        used = sample.cpu_seconds - self._last.cpu_seconds
        if sample.log_lines != self._last.log_lines or not idle(used, elapsed):
            self._active = sample.time
        self._last = sample
        return sample.time - self._active


def idle(used: float, elapsed: float) -> bool:
    """Whether so many seconds of processor time are those of processes that wait."""
    # Processes that end take their time with them: any change tells of work.
    return abs(used) <= _IDLE_SHARE * elapsed


def cpu_seconds(session: int, proc: Path = _PROC) -> float:
    """Processor time of the processes of a session, without those that have ended.

    Args:
        session: Its leader's process id.
        proc: Where the kernel tells (proc_pid_stat(5)).
    """
    ticks = 0
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            # The program's name is in parentheses and may hold anything, spaces included.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
