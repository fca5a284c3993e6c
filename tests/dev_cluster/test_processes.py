"""Processes by pid file: started once, ended by their own pid only, with their last words."""

import json
import os
import sys
from pathlib import Path

import pytest

from dev.cluster import processes
from dev.cluster.errors import ClusterError
from dev.cluster.paths import Layout
from dev.cluster.processes import Component, Record
from dev.cluster.waiting import wait_until

SLEEPER = Component("sleeper", (sys.executable, "-c", "import time; time.sleep(60)"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.create()
    return made


def record(layout: Layout, name: str = "sleeper") -> Record:
    found = processes.read_record(processes.pid_file(layout, name))
    assert found is not None
    return found


def test_it_is_started_once_in_a_session_of_its_own_and_stopped(layout: Layout) -> None:
    try:
        assert processes.ensure(layout, SLEEPER)
        first = record(layout)
        assert not processes.ensure(layout, SLEEPER)
        assert record(layout) == first
        assert os.getsid(first.pid) == first.pid
    finally:
        processes.stop(layout, "sleeper")
    assert not first.alive()
    assert not processes.running(layout, "sleeper")
    processes.stop(layout, "sleeper")


def test_it_is_restarted_when_its_configuration_changed(layout: Layout) -> None:
    try:
        processes.ensure(layout, SLEEPER)
        first = record(layout)
        assert processes.ensure(layout, Component("sleeper", SLEEPER.arguments, configuration="new"))
        assert not first.alive()
        assert record(layout).alive()
    finally:
        processes.stop(layout, "sleeper")


@pytest.mark.parametrize("stale", [{"start": "1"}, {"boot": "another boot"}])
def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(layout: Layout, stale: dict[str, str]) -> None:
    start = processes.start_time(os.getpid())
    ours = {"pid": os.getpid(), "start": start, "boot": processes.boot_id(), "fingerprint": ""}
    processes.pid_file(layout, "sleeper").write_text(json.dumps({**ours, **stale}))
    processes.stop(layout, "sleeper")  # would end this very test
    assert not processes.pid_file(layout, "sleeper").exists()


def test_a_pid_file_cut_short_counts_as_none(layout: Layout) -> None:
    processes.pid_file(layout, "sleeper").write_text('{"pid": 1')
    assert not processes.running(layout, "sleeper")


def test_what_ended_is_reported_with_its_last_words(layout: Layout) -> None:
    go = layout.root / "go"
    program = f"import pathlib\nwhile not pathlib.Path({str(go)!r}).exists(): pass\nprint('no such disk')"
    processes.ensure(layout, Component("loud", (sys.executable, "-c", program)))
    go.touch()
    wait_until("its end", lambda: not processes.running(layout, "loud"), seconds=60)
    with pytest.raises(ClusterError, match=r"(?s)loud ended.*no such disk"):
        processes.require(layout, "loud")


def test_what_ends_before_it_can_be_recorded_is_reported_too(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "start_time", lambda _pid: None)
    with pytest.raises(ClusterError, match=r"brief ended at once"):
        processes.ensure(layout, Component("brief", (sys.executable, "-c", "")))


def test_one_that_ignores_the_polite_signal_is_killed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    processes.ensure(layout, Component("stubborn", (sys.executable, "-c", stubborn)))
    log = processes.log_file(layout, "stubborn")
    wait_until("its handler", lambda: log.read_text() == "on\n", seconds=60)
    was = record(layout, "stubborn")
    processes.stop(layout, "stubborn")
    assert not was.alive()


def test_one_that_is_killed_is_not_asked_first(layout: Layout) -> None:
    polite = (
        "import signal, time; signal.signal(15, lambda *_: (print('asked', flush=True), exit()));"
        "print('on', flush=True); time.sleep(60)"
    )
    processes.ensure(layout, Component("polite", (sys.executable, "-c", polite)))
    log = processes.log_file(layout, "polite")
    wait_until("its handler", lambda: log.read_text() == "on\n", seconds=60)
    was = record(layout, "polite")
    processes.kill(layout, "polite")
    assert not was.alive()
    assert not processes.running(layout, "polite")
    assert log.read_text() == "on\n"


def test_a_deadline_says_what_was_waited_for() -> None:
    with pytest.raises(ClusterError, match="waiting for: the moon"):
        wait_until("the moon", lambda: False, seconds=0.05, every=0.01)
