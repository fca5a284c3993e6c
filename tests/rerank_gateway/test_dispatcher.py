"""Turns and their end, without sockets."""

import asyncio
import time

import pytest

from rerank_gateway import retry_budget
from rerank_gateway.backend import BackendAnswer, UnreachableError
from rerank_gateway.balancer import Replica
from rerank_gateway.config import Settings
from rerank_gateway.dispatcher import Dispatcher
from rerank_gateway.errand import Errand
from rerank_gateway.errors import ApiError
from rerank_gateway.metrics import Metrics
from rerank_gateway.records import Address, ObjectId
from rerank_gateway.rerank_request import RerankRequest
from rerank_gateway.split import Part
from rerank_gateway.trace import Trace

ANSWER = BackendAnswer(
    200, b'{"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"prompt_tokens": 10}}'
)
PART = Part(RerankRequest("q", ["d"], None, None), 100, [(0,)])


class Held:
    """Replicas that answer when told to."""

    def __init__(self, count: int = 1, **settings: int) -> None:
        self.replicas = [Replica(Address(str(number), 1)) for number in range(count)]
        self.asked: list[str] = []
        self.release = asyncio.Event()
        self.error: UnreachableError | None = None
        self.refused = 0
        self.dispatcher = Dispatcher(
            ObjectId("default", "m"),
            lambda: self.replicas,
            self._call,
            Settings(part_tokens=50, **settings),  # type: ignore[arg-type] # numbers all
            Metrics(),
        )

    async def _call(self, address: Address, body: bytes, names: bytes, until: float) -> BackendAnswer:
        self.asked.append(address.host)
        refused = len(self.asked) == self.refused
        if self.error is not None:
            raise self.error
        await self.release.wait()
        return BackendAnswer(400, b"{}") if refused else ANSWER

    def ask(self, seconds: float = 5) -> "asyncio.Task[object]":
        errand = Errand(ObjectId("default", "k"), Trace(), time.monotonic() + seconds)
        return asyncio.create_task(self.dispatcher.ask(errand, PART))

    def is_idle(self) -> bool:
        return not self.dispatcher.queue and all(
            (one.tokens_in_flight, one.requests_in_flight) == (0, 0) for one in self.replicas
        )


async def test_a_turn_that_comes_too_late_is_given_to_the_next() -> None:
    held = Held()
    first = held.ask()
    await asyncio.sleep(0)
    late, next_one = held.ask(seconds=0.02), held.ask()
    with pytest.raises(ApiError, match="did not answer within"):
        await late
    assert held.dispatcher.queue.requests == 1
    held.release.set()
    await asyncio.gather(first, next_one)
    assert len(held.asked) == 2
    assert held.is_idle()


async def test_who_leaves_at_the_moment_of_its_turn_holds_no_place() -> None:
    held = Held()
    first = held.ask()
    await asyncio.sleep(0)
    waiting = [held.ask() for _ in range(3)]
    await asyncio.sleep(0)
    held.release.set()
    await first
    for task in waiting:  # the first of them was just given its turn, or is about to be
        task.cancel()
    await asyncio.wait(waiting)
    assert held.is_idle()
    await held.ask()
    assert held.is_idle()


async def test_parts_that_never_began_hold_no_place() -> None:
    held = Held(2)
    errand = Errand(ObjectId("default", "k"), Trace(), time.monotonic() + 5)
    request = asyncio.create_task(held.dispatcher.ask_all(errand, [PART] * 6))
    await asyncio.sleep(0)
    request.cancel()  # tasks are made and have not begun
    await asyncio.wait([request])
    assert request.cancelled()
    assert held.is_idle()


async def test_pilots_that_end_together_and_not_alike_hold_no_place() -> None:
    """The first is answered, so that the rest may follow; the second is refused, so that nothing may."""
    held = Held(4)
    held.refused = 2
    errand = Errand(ObjectId("default", "k"), Trace(), time.monotonic() + 5)
    request = asyncio.create_task(held.dispatcher.ask_all(errand, [PART] * 8))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    other = held.ask()
    held.release.set()
    with pytest.raises(ApiError):
        await request
    await other
    assert held.is_idle()


async def test_what_waits_for_its_pilots_fills_the_queue() -> None:
    held = Held(3, max_queued_documents=20)

    def ask(parts: int) -> "asyncio.Task[object]":
        errand = Errand(ObjectId("default", "k"), Trace(), time.monotonic() + 5)
        return asyncio.create_task(held.dispatcher.ask_all(errand, [PART] * parts))

    requests = [ask(10) for _ in range(4)]
    await asyncio.sleep(0)
    assert held.dispatcher.queue.documents <= 20
    held.release.set()
    ends = await asyncio.gather(*requests, return_exceptions=True)
    assert [isinstance(end, ApiError) for end in ends] == [False, False, True, True]
    assert held.is_idle()
    assert held.dispatcher.queue.documents == 0


@pytest.mark.parametrize(("broken", "attempts"), [(0, 2), (1, 1)])
async def test_what_broke_two_replicas_is_not_tried_on_a_third(broken: int, attempts: int) -> None:
    """One part of a request may have broken one before, and another part the other."""
    held = Held(4)
    held.error = UnreachableError("closed")
    errand = Errand(ObjectId("default", "k"), Trace(), time.monotonic() + 5)
    errand.proven = True
    errand.broken.update(Address(f"before-{number}", 1) for number in range(broken))
    with pytest.raises(ApiError, match="could not be reached"):
        await held.dispatcher.ask(errand, PART)
    assert len(held.asked) == attempts
    assert held.is_idle()


async def test_second_attempts_end_with_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_budget, "PER_SECOND", 0.0)
    held = Held(2)
    held.error = UnreachableError("closed")
    for _ in range(400):
        with pytest.raises(ApiError):
            await held.ask()
    assert 400 + retry_budget.BURST <= len(held.asked) < 400 + retry_budget.BURST + 60
    assert held.is_idle()
