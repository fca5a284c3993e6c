"""Several pods on one volume, and pods that end in the middle: one download, and never half a model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rerank_runtime import lease, weights_folder
from rerank_runtime.fetch import fetch
from rerank_runtime.patience import StoppedError
from rerank_runtime.status import Phase, Status
from tests.rerank_runtime import faulty_hub
from tests.rerank_runtime.faulty_hub import (
    REPO,
    WEIGHTS,
    FaultyHub,
    assert_complete,
    refused,
    run,
    settings,
)

DEADLINE = 60.0
FILES = faulty_hub.model_files()
MOVED = faulty_hub.model_files(seed=1)
SIZE = len(FILES[WEIGHTS])

PROGRAM = """
import json, sys
from pathlib import Path
from rerank_runtime.fetch import Settings, fetch
from rerank_runtime.status import Phase, Status

told = json.loads(sys.argv[1])
paths = {name: Path(told.pop(name)) for name in ("directory", "store")}
fetch(Settings(**told, **paths), Status(Phase.DOWNLOADING))
"""


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    hub = FaultyHub(tmp_path_factory.mktemp("hub"))
    with faulty_hub.environment_kept(), hub.listening():
        hub.publish(FILES)
        yield hub


@pytest.fixture
def hub(listening: FaultyHub) -> FaultyHub:
    listening.reset()
    return listening


@contextmanager
def pod(hub: FaultyHub, directory: Path, store: Path, **changes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that fetches, killed at the end if it still runs."""
    told = {
        "repo": REPO,
        "revision": "main",
        "endpoint": hub.url,
        "patience": 20.0,
        "first_wait": 0.02,
        "lease_seconds": 1.0,
        "directory": str(directory),
        "store": str(store),
    }
    path = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(told | changes)], env=os.environ | {"PYTHONPATH": path}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.01)


def arrived(store: Path) -> int:
    """Bytes of the largest unfinished file."""
    sizes = []
    for part in store.glob("*/*.partial/parts/*"):
        try:
            sizes.append(part.stat().st_size)
        except FileNotFoundError:
            continue  # finished in the meantime
    return max(sizes, default=0)


def test_two_pods_at_once_fetch_once(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    hub.hub.bytes_per_second = {REPO: 200_000}
    with pod(hub, tmp_path / "a", store) as first, pod(hub, tmp_path / "b", store) as second:
        assert first.wait(DEADLINE) == second.wait(DEADLINE) == 0
    assert hub.starts() == [0]
    for name in "ab":
        assert_complete(tmp_path / name, FILES)


def test_a_killed_pods_download_is_taken_up_by_one_that_waits(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    hub.hub.bytes_per_second = {REPO: 100_000}
    with pod(hub, tmp_path / "a", store) as first:
        until(lambda: arrived(store) > 50_000)
        status, waiter = Status(Phase.DOWNLOADING), settings(hub, tmp_path / "b", store=store)
        waiting = threading.Thread(target=fetch, args=(waiter, status))
        waiting.start()
        until(lambda: "Another pod" in status.message)
        assert status.download is not None
        assert status.download.bytes > 50_000
        first.send_signal(signal.SIGKILL)
        first.wait(DEADLINE)
        hub.hub.bytes_per_second = {}
        waiting.join(DEADLINE)
    start, again = hub.starts()
    assert start == 0
    assert again > 50_000
    assert_complete(tmp_path / "b", FILES)


def test_killed_again_and_again_nothing_is_lost(hub: FaultyHub, tmp_path: Path) -> None:
    hub.hub.bytes_per_second = {REPO: 100_000}
    store = tmp_path / "pod" / "weights"
    for threshold in (1, 80_000):
        with pod(hub, tmp_path / "pod", store) as process:
            until(lambda least=threshold: arrived(store) > least)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
        assert not (tmp_path / "pod" / "model").exists()
    hub.hub.bytes_per_second = {}
    run(settings(hub, tmp_path / "pod"))
    starts = hub.starts()
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] >= 80_000
    assert_complete(tmp_path / "pod", FILES)


def test_a_pod_that_freezes_loses_the_lease_and_does_no_harm_when_it_wakes(
    hub: FaultyHub, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    hub.hub.bytes_per_second = {REPO: 100_000}
    with pod(hub, tmp_path / "a", store) as first:
        until(lambda: arrived(store) > 50_000)
        first.send_signal(signal.SIGSTOP)
        hub.hub.bytes_per_second = {}
        run(settings(hub, tmp_path / "b", store=store))
        assert_complete(tmp_path / "b", FILES)
        first.send_signal(signal.SIGCONT)
        assert first.wait(DEADLINE) == 0
    for name in "ab":
        assert_complete(tmp_path / name, FILES)
        assert (tmp_path / name / "model").resolve().is_relative_to(store)


def test_a_branch_that_moves_changes_no_pod_that_is_there(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    hub.publish(FILES, "acme/moving")
    run(settings(hub, tmp_path / "a", store=store, repo="acme/moving"))
    running = (tmp_path / "a" / "model").resolve()
    moved = hub.publish(MOVED, "acme/moving")
    status = run(settings(hub, tmp_path / "b", store=store, repo="acme/moving"))
    assert status.source is not None
    assert status.source.revision == moved
    assert_complete(tmp_path / "b", MOVED)
    assert_complete(tmp_path / "a", FILES)
    assert (tmp_path / "a" / "model").resolve() == running


def test_a_pod_whose_download_fails_lets_the_next_one_try_at_once(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    hub.publish(FILES, "acme/gated", gated=True)
    chosen = {"repo": "acme/gated", "store": store, "lease_seconds": 3600.0}
    refused(settings(hub, tmp_path / "a", **chosen))
    run(settings(hub, tmp_path / "b", **chosen, token="hf_demo_reader"))
    assert_complete(tmp_path / "b", FILES)


def test_a_stopped_pod_gives_the_lease_back_and_keeps_what_arrived(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    hub.hub.bytes_per_second = {REPO: 100_000}
    stop = threading.Event()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            fetch(
                settings(hub, tmp_path / "a", store=store, lease_seconds=3600.0),
                Status(Phase.DOWNLOADING),
                stop,
            )
        except StoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: arrived(store) > 50_000)
    stop.set()
    thread.join(DEADLINE)
    assert len(ended) == 1
    assert list(store.rglob("*.lease")) == []
    assert not (tmp_path / "a" / "model").exists()
    hub.hub.bytes_per_second = {}
    run(settings(hub, tmp_path / "b", store=store, lease_seconds=3600.0))
    assert hub.starts()[-1] > 50_000
    assert_complete(tmp_path / "b", FILES)


def test_the_program_ends_in_time_when_the_pod_is_stopped(hub: FaultyHub, tmp_path: Path) -> None:
    released = threading.Event()
    hub.faults.append(faulty_hub.drip(hub, released, every=0.05, count=0))
    path = os.pathsep.join(path for path in sys.path if path)
    arguments = ["--repo", REPO, "--dir", str(tmp_path), "--endpoint", hub.url, "--status-port", "0"]
    program = subprocess.Popen(
        [sys.executable, "-c", "from rerank_runtime.cli import main; main()", "fetch", *arguments],
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        until(lambda: bool(hub.starts()))
        program.send_signal(signal.SIGTERM)
        # Not 0: to the kubelet that would mean that the weights are there.
        assert program.wait(DEADLINE) == 128 + signal.SIGTERM
    finally:
        released.set()
        program.kill()
        program.wait(DEADLINE)
    assert list(tmp_path.rglob("*.lease")) == []


def test_a_lease_that_was_left_beside_a_whole_folder_stops_nobody(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(settings(hub, tmp_path / "a", store=store))
    folder = weights_folder.WeightsFolder((tmp_path / "a" / "model").resolve().parent)
    held = lease.Lease(folder.lease)
    assert held.acquire()
    try:
        run(settings(hub, tmp_path / "b", store=store, lease_seconds=3600.0))
    finally:
        held.release()
    assert_complete(tmp_path / "b", FILES)
