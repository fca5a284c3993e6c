"""A lease on a volume, with real files and short times."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_runtime import lease
from rerank_runtime.lease import Lease

pytestmark = pytest.mark.slow

DEADLINE = 20.0


def until(condition: Callable[[], bool]) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE, "waited for too long"
        time.sleep(0.01)
    return time.monotonic() - began


def left_behind(path: Path, kernel: str) -> None:
    """The lease of a holder that is gone."""
    path.write_text(json.dumps({"id": "gone", "kernel": kernel, "beat": 7}))


def test_one_at_a_time_and_the_next_after_it_was_given_back(tmp_path: Path) -> None:
    first, second = (Lease(tmp_path / "lease", seconds=60) for _ in range(2))
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert not (tmp_path / "lease").exists()
    assert second.acquire()
    second.release()


def test_a_holder_that_lives_keeps_it(tmp_path: Path) -> None:
    first, second = (Lease(tmp_path / "lease", seconds=1.0) for _ in range(2))
    assert first.acquire()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert not second.acquire()
        time.sleep(0.05)
    assert not first.lost
    first.release()


def test_the_dead_of_another_machine_are_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_behind(tmp_path / "lease", kernel="another")
    taker = Lease(tmp_path / "lease", seconds=0.6)
    assert until(taker.acquire) >= 0.6
    assert "Nobody renews" in caplog.text
    assert "machine is gone" not in caplog.text
    taker.release()
    assert list(tmp_path.iterdir()) == []


def test_the_dead_of_this_machine_are_known_by_their_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind(tmp_path / "lease", kernel=lease._kernel())
    taker = Lease(tmp_path / "lease", seconds=4.0)
    assert until(taker.acquire) >= 1.0
    assert "its holder on this machine is gone" in caplog.text
    taker.release()


def test_a_lock_that_is_held_shows_life_on_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    left_behind(path, kernel=lease._kernel())
    taker = Lease(path, seconds=1.2)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert until(taker.acquire) >= 1.2
    taker.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 300])
def test_a_lease_that_cannot_be_read_is_one_of_somebody_dead(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease").write_bytes(content)
    taker = Lease(tmp_path / "lease", seconds=0.3)
    until(taker.acquire)
    taker.release()
    assert list(tmp_path.iterdir()) == []


def test_who_was_taken_for_dead_notices_and_leaves_the_others_lease(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    first = Lease(path, seconds=0.5)
    assert first.acquire()
    other = json.dumps({"id": "other", "kernel": "another", "beat": 1}).encode()
    (tmp_path / "new").write_bytes(other)
    (tmp_path / "new").replace(path)
    until(lambda: first.lost)
    first.release()
    assert path.read_bytes() == other


def test_of_two_who_take_over_at_once_one_has_it(tmp_path: Path) -> None:
    left_behind(tmp_path / "lease", kernel="another")
    takers = [Lease(tmp_path / "lease", seconds=0.5) for _ in range(2)]
    held: list[Lease] = []

    def somebody() -> bool:
        held.extend(taker for taker in takers if taker not in held and taker.acquire())
        return bool(held)

    until(somebody)
    assert len([taker for taker in held if not taker.lost]) == 1
    for taker in held:
        taker.release()
