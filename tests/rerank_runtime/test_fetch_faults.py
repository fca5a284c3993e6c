"""Whatever a hub, the line to it or a disk does: a folder is complete and right, or there is a condition."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rerank_runtime.failure import Reason
from tests.rerank_runtime import faulty_hub
from tests.rerank_runtime.faulty_hub import (
    WEIGHTS,
    Fault,
    FaultyHub,
    answer,
    assert_complete,
    is_file,
    is_listing,
    refused,
    run,
    settings,
    times,
)

pytestmark = pytest.mark.slow

FILES = faulty_hub.model_files()
SIZE = len(FILES[WEIGHTS])

FaultOf = Callable[[FaultyHub], Fault]


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


def flipped(content: bytes) -> bytes:
    """The same length, one bit different, far from the header."""
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


# --- what passes ----------------------------------------------------------------------------------


def test_a_file_that_does_not_come_keeps_no_other_waiting(hub: FaultyHub, tmp_path: Path) -> None:
    """The configuration is held back until the weights, which are asked for after it, are there as well."""
    asked, held = asyncio.Event(), []

    async def hold(request: web.Request) -> web.StreamResponse | None:
        if is_file(request):
            asked.set()
        elif is_file(request, "config.json"):
            # Only where files come one after another does it run out.
            await asyncio.wait_for(asked.wait(), 10)
            held.append(request.path)
        return None

    hub.faults.append(hold)
    run(settings(hub, tmp_path))
    assert_complete(tmp_path, FILES)
    assert len(held) == 1


@examples(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, SIZE), min_size=1, max_size=4))
@example(cuts=[0])
@example(cuts=[1])
@example(cuts=[SIZE - 1])
@example(cuts=[SIZE])
@example(cuts=[100_000, 100_000, 100_001])
def test_a_cut_at_any_byte_is_taken_up_where_it_was(
    listening: FaultyHub, tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    listening.reset()
    directory = tmp_path_factory.mktemp("cut")
    listening.faults.append(faulty_hub.cut(listening, cuts))
    run(settings(listening, directory, first_wait=0.001))
    assert_complete(directory, FILES)
    asked = listening.starts()
    # Each request begins where the one before ended: no byte is asked for twice.
    expected, at = [0], 0
    for position in cuts:
        at = max(at, position)
        if at == SIZE:
            break
        expected.append(at)
    assert asked == expected


@examples(max_examples=25, deadline=None)
@given(position=st.integers(0, SIZE - 1))
@example(position=0)
@example(position=SIZE - 1)
def test_what_arrived_before_a_restart_is_not_asked_for_again(
    listening: FaultyHub, tmp_path_factory: pytest.TempPathFactory, position: int
) -> None:
    listening.reset()
    directory = tmp_path_factory.mktemp("restart")
    listening.faults += [faulty_hub.cut(listening, [position]), answer(400)]
    refused(settings(listening, directory, first_wait=0.001))
    listening.reset()
    run(settings(listening, directory))
    assert_complete(directory, FILES)
    assert listening.starts() == [position]


PASSING: dict[str, FaultOf] = {
    "500 to the listing": lambda _hub: times(2, answer(500, is_listing)),
    "502 to the listing": lambda _hub: times(1, answer(502, is_listing)),
    "500 to a file": lambda _hub: times(2, answer(500)),
    "503 to a file": lambda _hub: times(2, answer(503)),
    "408 to a file": lambda _hub: times(1, answer(408)),
    "429 without a time": lambda _hub: times(2, answer(429)),
    "429 to the listing": lambda _hub: times(1, answer(429, is_listing, Retry_After="0")),
    "an error whose body is a list": lambda _hub: times(1, answer(500, body="[1]", kind="application/json")),
    "one bit flipped once": lambda hub: times(1, faulty_hub.altered(hub, flipped)),
    "one bit flipped in a small file": lambda hub: times(1, faulty_hub.altered(hub, flipped, "config.json")),
    "no ranges": faulty_hub.no_ranges,
    "compressed": lambda hub: faulty_hub.compressed(hub, "tokenizer.json"),
    "no length": lambda hub: faulty_hub.without_length(hub, lambda content: content),
    "no length and too long, once": lambda hub: times(
        1, faulty_hub.without_length(hub, lambda content: content + b"x")
    ),
    "no length and too short, once": lambda hub: times(
        1, faulty_hub.without_length(hub, lambda content: content[:-1])
    ),
    "sizes and hashes with the files alone": lambda _hub: faulty_hub.edit_listing(
        lambda body: body.update(siblings=[{"rfilename": s["rfilename"]} for s in body["siblings"]])
    ),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_faults_that_pass(hub: FaultyHub, tmp_path: Path, fault: FaultOf) -> None:
    hub.faults.append(fault(hub))
    run(settings(hub, tmp_path))
    assert_complete(tmp_path, FILES)


def test_an_empty_file_is_a_file(hub: FaultyHub, tmp_path: Path) -> None:
    files = FILES | {"merges.txt": b""}
    hub.publish(files, "acme/empty")
    run(settings(hub, tmp_path, repo="acme/empty"))
    assert_complete(tmp_path, files)


def test_a_hub_without_ranges_that_is_cut_begins_again(hub: FaultyHub, tmp_path: Path) -> None:
    hub.faults += [faulty_hub.cut(hub, [150_000]), faulty_hub.no_ranges(hub)]
    run(settings(hub, tmp_path))
    assert hub.starts() == [0, 150_000]
    assert_complete(tmp_path, FILES)


def test_another_part_than_was_asked_for_is_not_taken(hub: FaultyHub, tmp_path: Path) -> None:
    hub.faults += [faulty_hub.cut(hub, [150_000]), times(1, faulty_hub.elsewhere(hub))]
    run(settings(hub, tmp_path))
    assert hub.starts() == [0, 150_000, 150_000]
    assert_complete(tmp_path, FILES)


def test_a_part_that_the_disk_damaged_is_fetched_again(hub: FaultyHub, tmp_path: Path) -> None:
    hub.faults += [faulty_hub.cut(hub, [150_000]), answer(400)]
    refused(settings(hub, tmp_path))
    (part,) = (path for path in tmp_path.rglob("parts/*") if path.stat().st_size == 150_000)
    part.write_bytes(b"\0" * 150_000)
    hub.reset()
    run(settings(hub, tmp_path))
    assert hub.starts() == [150_000, 0]
    assert_complete(tmp_path, FILES)


def test_a_time_that_the_hub_asks_for_is_honoured(hub: FaultyHub, tmp_path: Path) -> None:
    asked: list[float] = []
    # As long as the patience: to be told to wait is not silence.
    hub.faults += [noting(asked, is_file), times(1, answer(429, Retry_After="1"))]
    run(settings(hub, tmp_path, patience=1.0))
    assert asked[1] - asked[0] >= 1.0
    assert_complete(tmp_path, FILES)


def noting(times_seen: list[float], when: Callable[[web.Request], bool]) -> Fault:
    """Notes when a request came, and lets the hub answer."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if when(request):
            times_seen.append(time.monotonic())
        return None

    return fault


# --- what becomes a condition ---------------------------------------------------------------------


def siblings(**changes: Any) -> Fault:
    """A listing whose weights are described otherwise."""

    def change(body: dict[str, Any]) -> None:
        for sibling in body["siblings"]:
            if sibling["rfilename"] == WEIGHTS:
                sibling.update(changes)

    return faulty_hub.edit_listing(change)


LASTING: dict[str, tuple[FaultOf, Reason, str]] = {
    "500": (lambda _hub: answer(500), Reason.HUB_UNREACHABLE, "status 500"),
    "429": (lambda _hub: answer(429), Reason.HUB_RATE_LIMITED, "(429): a token in spec.model.huggingFace"),
    "429 for hours": (
        lambda _hub: answer(429, Retry_After="7200"),
        Reason.HUB_RATE_LIMITED,
        "to be left alone for 7200 s",
    ),
    "wrong bytes": (
        lambda hub: faulty_hub.altered(hub, flipped),
        Reason.WEIGHTS_CORRUPT,
        "model.safetensors arrives with a hash of",
    ),
    "wrong bytes of a small file": (
        lambda hub: faulty_hub.altered(hub, flipped, "config.json"),
        Reason.WEIGHTS_CORRUPT,
        "config.json arrives with a hash of",
    ),
    "shorter, and saying so": (
        lambda hub: faulty_hub.altered(hub, lambda content: content[:-1]),
        Reason.WEIGHTS_TRUNCATED,
        f"arrived with {SIZE - 1} bytes where the hub lists {SIZE}",
    ),
    "longer without a length": (
        lambda hub: faulty_hub.without_length(hub, lambda content: content + b"x"),
        Reason.WEIGHTS_CORRUPT,
        f"more than the {SIZE} bytes",
    ),
    "shorter without a length": (
        lambda hub: faulty_hub.without_length(hub, lambda content: content[:-1]),
        Reason.HUB_UNREACHABLE,
        f"ended model.safetensors after {SIZE - 1} of {SIZE} bytes",
    ),
    "a redirect to itself": (
        lambda _hub: faulty_hub.redirect_to_itself,
        Reason.HUB_UNREACHABLE,
        "redirects in a circle",
    ),
    "a login page": (
        lambda _hub: answer(200, lambda _request: True, body="<html>log in</html>", kind="text/html"),
        Reason.INVALID_SOURCE,
        "does not answer as a hub does",
    ),
    "a listing that is no object": (
        lambda _hub: answer(200, is_listing, body="[]", kind="application/json"),
        Reason.INVALID_SOURCE,
        "does not answer as a hub does",
    ),
    "a listing of endless depth": (
        lambda _hub: answer(200, is_listing, body="[" * 100_000, kind="application/json"),
        Reason.INVALID_SOURCE,
        "does not answer as a hub does",
    ),
    "a commit that is a path": (
        lambda _hub: faulty_hub.edit_listing(lambda body: body.update(sha="../../etc")),
        Reason.INVALID_SOURCE,
        "does not say which commit main is",
    ),
    "a hash that is none": (
        lambda _hub: siblings(lfs={"sha256": "../../x", "size": SIZE, "pointerSize": 1}),
        Reason.INVALID_SOURCE,
        "does not say what model.safetensors must hold",
    ),
    "another size in the listing": (
        lambda _hub: siblings(size=SIZE + 1),
        Reason.WEIGHTS_TRUNCATED,
        f"arrived with {SIZE} bytes where the hub lists {SIZE + 1}",
    ),
    "a file that is gone": (
        lambda _hub: answer(404, X_Error_Code="EntryNotFound"),
        Reason.INVALID_SOURCE,
        "is not there",
    ),
    "a refusal of files alone": (
        lambda _hub: answer(403, X_Error_Code="GatedRepo"),
        Reason.REPOSITORY_GATED,
        "gated",
    ),
    "an ending that is none": (lambda _hub: answer(204), Reason.INVALID_SOURCE, "status 204"),
}


@pytest.mark.parametrize(("fault", "reason", "says"), LASTING.values(), ids=LASTING)
def test_faults_that_last(hub: FaultyHub, tmp_path: Path, fault: FaultOf, reason: Reason, says: str) -> None:
    hub.faults.append(fault(hub))
    lasting = reason in {Reason.HUB_UNREACHABLE, Reason.HUB_RATE_LIMITED}
    failure = refused(settings(hub, tmp_path, **({"patience": 1.0} if lasting else {})))
    assert failure.reason == reason
    assert says in failure.message
    # And once it is over, the next pod gets a folder that is right.
    hub.reset()
    run(settings(hub, tmp_path))
    assert_complete(tmp_path, FILES)


@pytest.mark.parametrize("count", [0, 1], ids=["nothing after the head", "a byte now and then"])
def test_a_hub_that_drips_is_given_up(hub: FaultyHub, tmp_path: Path, count: int) -> None:
    released = threading.Event()
    hub.faults.append(faulty_hub.drip(hub, released, every=0.02, count=count))
    began = time.monotonic()
    try:
        failure = refused(settings(hub, tmp_path, patience=0.5))
    finally:
        released.set()
    assert failure.reason == Reason.HUB_UNREACHABLE
    assert time.monotonic() - began < 10


@contextmanager
def dripping_heads() -> Iterator[str]:
    """A server whose answers' heads never end; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def talk(connection: socket.socket) -> None:
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not ended.wait(0.02):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()


def test_a_head_that_never_ends(hub: FaultyHub, tmp_path: Path) -> None:
    with dripping_heads() as address:
        began = time.monotonic()
        failure = refused(settings(hub, tmp_path, endpoint=address, patience=0.5))
    assert failure.reason == Reason.HUB_UNREACHABLE
    assert "sent nothing within" in failure.message
    assert time.monotonic() - began < 10


def test_no_hub_at_all(hub: FaultyHub, tmp_path: Path, free_port: Callable[[], int]) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    failure = refused(settings(hub, tmp_path, endpoint=endpoint, patience=1.0))
    assert (failure.reason, failure.retriable) == (Reason.HUB_UNREACHABLE, True)
    assert endpoint in failure.message


def test_a_repository_whose_own_file_is_cut_short(hub: FaultyHub, tmp_path: Path) -> None:
    hub.publish(FILES | {WEIGHTS: FILES[WEIGHTS][:-100]}, "acme/short")
    failure = refused(settings(hub, tmp_path, repo="acme/short"))
    assert failure.reason == Reason.WEIGHTS_TRUNCATED
    assert f"{SIZE - 100} bytes where its header says {SIZE}" in failure.message


# --- disks ----------------------------------------------------------------------------------------


@contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("needs to mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_without_room_is_told_before_anything_moves(hub: FaultyHub, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "volume", "size=100k") as volume:
        failure = refused(settings(hub, volume))
    assert failure.reason == Reason.DISK_FULL
    assert "the volume has 0.0 GiB left" in failure.message
    assert hub.seen == []


def test_a_disk_that_fills_up_on_the_way_keeps_what_arrived(hub: FaultyHub, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "volume", "size=400k") as volume:
        filler = volume / "somebody-elses"

        async def fill(request: web.Request) -> web.StreamResponse | None:
            if is_file(request) and not filler.exists():
                free = shutil.disk_usage(volume).free
                filler.write_bytes(b"x" * (free - 100_000))
            return None

        hub.faults.append(fill)
        failure = refused(settings(hub, volume))
        assert (failure.reason, failure.retriable) == (Reason.DISK_FULL, True)
        assert "The disk is full" in failure.message
        filler.write_bytes(b"")
        hub.seen.clear()
        run(settings(hub, volume))
        assert_complete(volume, FILES)
        (start,) = hub.starts()
        assert start > 50_000


def test_a_volume_that_cannot_be_written(hub: FaultyHub, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "volume", "ro,size=1m") as volume:
        failure = refused(settings(hub, tmp_path / "pod", store=volume))
    assert failure.reason == Reason.VOLUME_UNUSABLE
    assert "Read-only file system" in failure.message
    assert str(os.getuid()) in failure.message


def test_a_date_is_a_time_too(hub: FaultyHub, tmp_path: Path) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
    hub.faults.append(answer(503, is_listing, Retry_After=later))
    failure = refused(settings(hub, tmp_path))
    assert "status 503 and asks to be left alone for 10" in failure.message
