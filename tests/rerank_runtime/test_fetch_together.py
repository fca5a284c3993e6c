"""Several pods on one volume, and pods that end in the middle: one download, and never half a model."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from aiohttp import web

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
    is_file,
    refused,
    run,
    settings,
    times,
)

pytestmark = pytest.mark.slow

DEADLINE = 60.0
FILES = faulty_hub.model_files()
MOVED = faulty_hub.model_files(seed=1)
HALF = len(FILES[WEIGHTS]) // 2

# Pods are forked from a process that has everything imported and no threads.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["rerank_runtime.fetch", "rerank_runtime.hub_errors", "huggingface_hub.hf_api"])


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
def pod(hub: FaultyHub, directory: Path, store: Path) -> Iterator[ForkServerProcess]:
    """A process that fetches, killed at the end if it still runs."""
    told = settings(hub, directory, store=store, patience=120.0)
    process = FORKS.Process(target=fetch, args=(told, Status(Phase.DOWNLOADING)))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(DEADLINE)


def send(process: ForkServerProcess, number: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


def ending(process: ForkServerProcess) -> int | None:
    """The exit code, once there is one."""
    process.join(DEADLINE)
    return process.exitcode


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


@pytest.fixture
def halfway(hub: FaultyHub) -> Iterator[threading.Event]:
    """The first download stops in the middle until it is set."""
    released = threading.Event()
    hub.faults.append(times(1, faulty_hub.paused(hub, HALF, released)))
    yield released
    released.set()


def listings(hub: FaultyHub) -> int:
    """How many have asked for the listing since the test began."""
    return sum(count for request, count in hub.hub.requests.items() if "/api/" in request)


def test_two_pods_at_once_fetch_once(hub: FaultyHub, halfway: threading.Event, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pod(hub, tmp_path / "a", store) as first, pod(hub, tmp_path / "b", store) as second:
        until(lambda: arrived(store) == HALF and listings(hub) == 2)
        halfway.set()
        assert ending(first) == ending(second) == 0
    assert hub.starts() == [0]
    for name in "ab":
        assert_complete(tmp_path / name, FILES)


def test_a_killed_pods_download_is_taken_up_by_one_that_waits(
    hub: FaultyHub, halfway: threading.Event, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with pod(hub, tmp_path / "a", store) as first:
        until(lambda: arrived(store) == HALF)
        status, waiter = Status(Phase.DOWNLOADING), settings(hub, tmp_path / "b", store=store)
        waiting = threading.Thread(target=fetch, args=(waiter, status))
        waiting.start()
        until(lambda: "Another pod" in status.message)
        assert status.download is not None
        assert status.download.bytes >= HALF
        first.kill()
        assert ending(first) == -signal.SIGKILL
        waiting.join(DEADLINE)
    assert hub.starts() == [0, HALF]
    assert_complete(tmp_path / "b", FILES)


def test_killed_again_and_again_nothing_is_lost(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "pod" / "weights"
    never = threading.Event()
    for position in (1, 80_000):
        hub.faults[:] = [faulty_hub.paused(hub, position, never)]
        with pod(hub, tmp_path / "pod", store) as process:
            until(lambda there=position: arrived(store) == there)  # type: ignore[misc]
            process.kill()
            assert ending(process) == -signal.SIGKILL
        assert not (tmp_path / "pod" / "model").exists()
    never.set()
    hub.faults.clear()
    run(settings(hub, tmp_path / "pod"))
    assert hub.starts() == [0, 1, 80_000]
    assert_complete(tmp_path / "pod", FILES)


def test_a_pod_that_freezes_loses_the_lease_and_does_no_harm_when_it_wakes(
    hub: FaultyHub, halfway: threading.Event, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with pod(hub, tmp_path / "a", store) as first:
        until(lambda: arrived(store) == HALF)
        send(first, signal.SIGSTOP)
        run(settings(hub, tmp_path / "b", store=store))
        assert_complete(tmp_path / "b", FILES)
        halfway.set()
        send(first, signal.SIGCONT)
        assert ending(first) == 0
    for name in "ab":
        assert_complete(tmp_path / name, FILES)
        assert (tmp_path / name / "model").resolve().is_relative_to(store)


def test_a_pod_whose_place_another_has_taken_waits_for_it(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "store"

    async def taken_over(request: web.Request) -> web.StreamResponse | None:
        if is_file(request) and len(hub.starts()) == 1:
            (held,) = store.glob("*/*.lease")
            other = held.with_name("other")
            other.write_text(json.dumps({"id": "other", "kernel": "another", "beat": 1}))
            other.replace(held)
            (staging,) = store.glob("*/*.partial")
            # At once: removed entry by entry, it would be written to meanwhile.
            staging.replace(tmp_path / "taken")
        return None

    hub.faults.append(taken_over)
    run(settings(hub, tmp_path / "pod", store=store))
    assert hub.starts() == [0, 0]
    assert_complete(tmp_path / "pod", FILES)


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


def test_a_stopped_pod_gives_the_lease_back_and_keeps_what_arrived(
    hub: FaultyHub, halfway: threading.Event, tmp_path: Path
) -> None:
    store = tmp_path / "store"
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
    until(lambda: arrived(store) == HALF)
    stop.set()
    thread.join(DEADLINE)
    assert len(ended) == 1
    assert list(store.rglob("*.lease")) == []
    assert not (tmp_path / "a" / "model").exists()
    run(settings(hub, tmp_path / "b", store=store, lease_seconds=3600.0))
    assert hub.starts() == [0, HALF]
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
