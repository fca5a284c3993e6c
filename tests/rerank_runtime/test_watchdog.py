"""Telling work from hanging."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_runtime.watchdog import Sample, Watchdog, cpu_seconds


def idle(*samples: tuple[float, int, float]) -> float:
    first, *rest = (Sample(*each) for each in samples)
    dog = Watchdog(first)
    return [dog.idle_seconds(each) for each in rest][-1]


@pytest.mark.parametrize(
    ("samples", "seconds"),
    [
        # Neither a line nor processor time.
        ([(0, 3, 1.0), (5, 3, 1.0), (600, 3, 1.0)], 600),
        # A little processor time is a process that waits.
        ([(0, 3, 1.0), (5, 3, 1.01), (10, 3, 1.02)], 10),
        # Loading uses it, without a word.
        ([(0, 3, 1.0), (5, 3, 1.0), (10, 3, 2.0)], 0),
        ([(0, 3, 1.0), (5, 3, 2.0), (15, 3, 2.0)], 10),
        ([(0, 3, 1.0), (5, 4, 1.0), (15, 4, 1.0)], 10),
        # A worker ended and took its time along.
        ([(0, 3, 9.0), (5, 3, 1.0)], 0),
    ],
)
def test_work_is_log_or_processor_time(samples: list[tuple[float, int, float]], seconds: float) -> None:
    assert idle(*samples) == seconds


def test_processor_time_of_a_session_and_of_no_other(tmp_path: Path) -> None:
    def process(pid: int, session: int, user: int, system: int) -> None:
        (tmp_path / str(pid)).mkdir()
        text = f"{pid} (VLLM: a) b) S 1 1 {session} 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0"
        (tmp_path / str(pid) / "stat").write_text(text)

    hertz = os.sysconf("SC_CLK_TCK")
    process(7, 7, hertz, hertz)
    process(8, 7, 3 * hertz, 0)
    process(9, 9, 50 * hertz, 0)
    (tmp_path / "10").mkdir()
    (tmp_path / "self").mkdir()
    assert cpu_seconds(7, tmp_path) == 5.0


@pytest.fixture
def session() -> Callable[[str], subprocess.Popen[bytes]]:
    def start(code: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)

    return start


def test_real_processes(session: Callable[[str], subprocess.Popen[bytes]]) -> None:
    busy = session("import os\nos.fork()\nwhile True: pass")
    try:
        deadline = time.monotonic() + 30
        while cpu_seconds(busy.pid) < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(busy.pid, signal.SIGKILL)
        busy.wait()
