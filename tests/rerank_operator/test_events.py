"""Posting events: in order of time, bounded, not twice, and never in the way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.cluster import Cluster
from rerank_operator.events import Notice, Recorder
from rerank_operator.resources import Object
from tests.rerank_operator.samples import model


class Posts(Cluster):
    """Takes events, or refuses them."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.posted: list[Object] = []
        self.error = error
        self.free = asyncio.Event()
        self.free.set()
        self._changed = asyncio.Event()

    async def create_event(self, event: Object) -> None:
        await self.free.wait()
        if self.error is not None:
            raise self.error
        self.posted.append(event)
        self._changed.set()

    async def until(self, count: int) -> None:
        while len(self.posted) < count:
            self._changed.clear()
            await self._changed.wait()


async def test_an_event_as_it_is_posted() -> None:
    posts = Posts()
    recorder = Recorder(api=posts, instance="rerank-operator-0")
    recorder.record(model(), [Notice("Warning", "RepositoryGated", "ask for access")])
    await recorder.post()
    (event,) = posts.posted
    assert event["regarding"] == {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "name": "minilm",
        "namespace": "team",
        "uid": "u-1",
    }
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "RepositoryGated", "ask for access")
    assert event["metadata"]["namespace"] == "team"
    assert event["eventTime"].endswith("Z")


async def test_names_sort_by_time() -> None:
    """Kubectl describe shows events without a series in the order of their names."""
    posts = Posts()
    recorder = Recorder(api=posts, instance="i")
    recorder.record(model(), [Notice("Normal", f"R{n}", "") for n in range(20)])
    await recorder.post()
    names = [event["metadata"]["name"] for event in posts.posted]
    assert names == sorted(names)
    assert len(set(names)) == 20


async def test_the_same_is_not_told_twice_in_a_row() -> None:
    posts = Posts()
    recorder = Recorder(api=posts, instance="i")
    notice = Notice("Warning", "Unschedulable", "no node")
    recorder.record(model(), [notice])
    recorder.record(model(), [notice, Notice("Warning", "Unschedulable", "another node")])
    await recorder.post()
    assert [event["note"] for event in posts.posted] == ["no node", "another node"]


async def test_a_long_note_is_cut_between_characters() -> None:
    posts = Posts()
    recorder = Recorder(api=posts, instance="i")
    recorder.record(model(), [Notice("Normal", "R", "熊猫" * 1000)])
    await recorder.post()
    note = posts.posted[0]["note"]
    assert len(note.encode()) in range(1021, 1025)
    assert set(note) == set("熊猫")


async def test_an_event_that_is_refused_stops_nothing() -> None:
    posts = Posts(error=ApiError(403, "Forbidden", ""))
    recorder = Recorder(api=posts, instance="i")
    recorder.record(model(), [Notice("Normal", "R", "n")])
    await recorder.post()
    assert posts.posted == []


async def test_one_that_the_lease_holds_back_stops_nothing() -> None:
    posts = Posts(error=NotLeaderError())
    recorder = Recorder(api=posts, instance="i")
    recorder.record(model(), [Notice("Normal", "R", "n")])
    await recorder.post()
    assert posts.posted == []


async def test_an_event_tells_when_it_was_recorded() -> None:
    posts = Posts()
    recorder = Recorder(api=posts, instance="i")
    recorder.record(model(), [Notice("Normal", "R", "n")])
    recorded = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await recorder.post()
    told = datetime.fromisoformat(posts.posted[0]["eventTime"])
    assert told <= recorded


@contextlib.asynccontextmanager
async def running(recorder: Recorder) -> AsyncIterator[None]:
    task = asyncio.create_task(recorder.run())
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_nobody_waits_for_an_event() -> None:
    posts = Posts()
    posts.free.clear()
    recorder = Recorder(api=posts, instance="i")
    async with running(recorder):
        recorder.record(model(), [Notice("Normal", f"R{n}", "") for n in range(3)])
        await asyncio.sleep(0)
        assert posts.posted == []
        posts.free.set()
        async with asyncio.timeout(5):
            await posts.until(3)


async def test_events_give_way_to_looks() -> None:
    posts, waiting = Posts(), True
    recorder = Recorder(api=posts, instance="i", busy=lambda: waiting)
    async with running(recorder):
        recorder.record(model(), [Notice("Normal", f"R{n}", "") for n in range(1000)])
        async with asyncio.timeout(5):
            await posts.until(3)
        assert len(posts.posted) < 10  # a tenth of a second for each
        waiting = False
        async with asyncio.timeout(5):
            await posts.until(1000)


async def test_of_too_many_the_oldest_are_given_up() -> None:
    posts = Posts()
    recorder = Recorder(api=posts, instance="i")
    recorder.record(model(), [Notice("Normal", f"R{n}", "") for n in range(20_010)])
    await recorder.post()
    assert len(posts.posted) == 20_000
    assert posts.posted[0]["reason"] == "R10"
