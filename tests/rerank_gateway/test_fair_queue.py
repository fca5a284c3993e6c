"""Whose turn it is, and who may still wait."""

import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_gateway.errand import Errand
from rerank_gateway.fair_queue import Entry, FairQueue
from rerank_gateway.queue_limits import QueueLimits
from rerank_gateway.records import ObjectId
from rerank_gateway.rerank_request import RerankRequest
from rerank_gateway.retry_budget import BURST, PER_SECOND, RetryBudget
from rerank_gateway.split import Part
from rerank_gateway.throughput import Throughput
from rerank_gateway.trace import Trace


class Owner:
    """Who waits."""


class Piece(NamedTuple):
    name: str
    tokens: int = 100
    documents: int = 1


Queue = FairQueue[Piece, str]


def push(queue: Queue, key: str, name: str, parts: int = 1, tokens: int = 100) -> Entry[Piece, str]:
    return queue.push(key, [Piece(f"{name}{n}", tokens) for n in range(parts)], name)


def drain(queue: Queue, count: int = 10**6) -> list[str]:
    taken: list[str] = []
    while len(taken) < count and (entry := queue.head()) is not None:
        assert queue.head() is entry
        taken.append(queue.take(entry).name)
    return taken


def test_a_small_request_does_not_wait_behind_a_large_one_of_its_own_key() -> None:
    queue = Queue(100)
    push(queue, "key", "large", parts=80)
    assert drain(queue, 3) == ["large0", "large1", "large2"]
    push(queue, "key", "small")
    assert drain(queue, 2) == ["small0", "large3"]


def test_a_large_request_does_not_wait_for_ever_behind_small_ones_of_its_own_key() -> None:
    queue = Queue(100)
    push(queue, "key", "large", parts=80)
    taken = []
    for _ in range(100):
        push(queue, "key", "small", tokens=50)
        taken += drain(queue, 1)
    assert Counter(name[:5] for name in taken)["large"] >= 10


def test_a_key_that_had_nothing_waiting_comes_first_but_only_once() -> None:
    queue = Queue(100)
    push(queue, "busy", "b", parts=80)
    drain(queue, 5)
    push(queue, "rare", "r", parts=3)
    assert drain(queue, 6) == ["r0", "r1", "b5", "r2", "b6", "b7"]  # b4 was just served
    # It asks again as soon as it is served: that does not put it before the other for ever.
    taken = []
    for _ in range(10):
        push(queue, "rare", "again")
        taken += drain(queue, 2)
    assert Counter(name[0] for name in taken) == {"a": 10, "b": 10}


def test_keys_share_in_tokens_not_in_requests() -> None:
    queue = Queue(100)
    push(queue, "long", "l", parts=100, tokens=100)
    push(queue, "short", "s", parts=1000, tokens=10)
    taken = Counter(name[0] for name in drain(queue, 220))
    assert taken["l"] * 100 == pytest.approx(taken["s"] * 10, abs=100)


def test_something_larger_than_a_turn_comes_all_the_same() -> None:
    queue = Queue(100)
    push(queue, "a", "whale", tokens=1000)
    push(queue, "b", "b", parts=30)
    assert "whale0" in drain(queue, 15)


def test_what_is_removed_is_not_given_a_turn() -> None:
    queue = Queue(100)
    gone = push(queue, "a", "gone", parts=5)
    push(queue, "a", "stays")
    push(queue, "b", "b")
    drain(queue, 1)
    queue.remove(gone)
    queue.remove(gone)
    assert (queue.requests, queue.documents, queue.tokens) == (2, 2, 200)
    assert sorted(drain(queue)) == ["b0", "stays0"]
    assert not queue


def test_what_is_removed_is_forgotten_at_once() -> None:
    """A request's texts are with its owner: who left must not keep them behind one that still waits."""
    queue = FairQueue[Piece, Owner](100)
    queue.push("key", [Piece("first")], Owner())
    owner = Owner()
    gone = weakref.ref(owner)
    queue.remove(queue.push("key", [Piece("second")], owner))
    del owner
    assert gone() is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(st.integers(1, 300), min_size=1, max_size=5))
        | st.sampled_from(["take", "remove"]),
        max_size=40,
    )
)
def test_nothing_is_lost_and_the_counts_are_right(steps: list[Any]) -> None:
    queue = Queue(100)
    waiting: list[Entry[Piece, str]] = []
    taken = pushed = removed = 0
    for number, step in enumerate(steps):
        if step == "take":
            entry = queue.head()
            assert (entry is None) is (not queue)
            if entry is not None:
                queue.take(entry)
                taken += 1
        elif step == "remove":
            if waiting:
                removed += len(waiting[0].items)
                queue.remove(waiting.pop(0))
        else:
            key, tokens = step
            waiting.append(queue.push(key, [Piece(str(number), cost) for cost in tokens], key))
            pushed += len(tokens)
        left = [item for entry in waiting for item in entry.items]
        assert queue.documents == len(left) == pushed - taken - removed
        assert queue.tokens == sum(item.tokens for item in left)
        assert queue.requests == sum(bool(entry.items) for entry in waiting)
    assert len(drain(queue)) == pushed - taken - removed
    assert (queue.tokens, queue.documents, queue.requests) == (0, 0, 0)


# Limits


def part(documents: int, tokens: int) -> Part:
    return Part(RerankRequest("q", ["d"] * documents, None, None), tokens, ())


def limited(
    waiting: dict[str, tuple[int, int]],
    own: tuple[int, int],
    *,
    rate: float | None = None,
    left: float = 60,
    running: int = 0,
) -> int | None:
    """Whether the key "me" may wait with (documents, tokens), behind what others have waiting."""
    queue: FairQueue[Part, None] = FairQueue(100)
    for key, (documents, tokens) in waiting.items():
        queue.push(ObjectId("default", key), [part(documents, tokens)], None)
    errand = Errand(ObjectId("default", "me"), Trace(), deadline=1000 + left)
    limits = QueueLimits(documents=100, seconds=30)
    return limits.refuse(queue, errand, [part(*own)], running=running, rate=rate, now=1000)


@pytest.mark.parametrize(
    ("waiting", "own", "fields", "refused"),
    [
        ({}, (10_000, 10**9), {"rate": 1.0}, False),  # nothing waits: anything may
        ({"you": (50, 50)}, (50, 50), {}, False),
        ({"me": (60, 60)}, (50, 50), {}, True),
        ({"you": (100, 100)}, (50, 50), {}, False),  # the places that are its share
        ({"you": (100, 100)}, (51, 50), {}, True),
        ({"you": (100, 1), "he": (60, 1), "me": (20, 1)}, (13, 1), {}, False),
        ({"you": (100, 1), "he": (60, 1), "me": (20, 1)}, (14, 1), {}, True),
        ({"you": (199, 1)}, (2, 1), {}, True),  # twice the places is the end
        ({"me": (1, 290)}, (1, 100), {"rate": 10.0}, False),
        ({"me": (1, 290)}, (1, 100), {"rate": 10.0, "running": 250}, True),  # 35 seconds until its turn
        ({"me": (1, 200)}, (1, 100), {"rate": 10.0, "left": 19}, True),  # its answer would be too late
        ({"me": (1, 200)}, (1, 100), {"rate": 10.0, "left": 21}, False),
        ({"you": (1, 10_000)}, (1, 100), {"rate": 10.0}, False),  # its own turn comes long before that
    ],
)
def test_who_may_wait(
    waiting: dict[str, tuple[int, int]], own: tuple[int, int], fields: dict[str, Any], refused: bool
) -> None:
    assert (limited(waiting, own, **fields) is not None) is refused


def test_what_waits_for_its_pilots_is_counted() -> None:
    queue: FairQueue[Part, None] = FairQueue(100)
    limits = QueueLimits(documents=100, seconds=30)
    me, you = (Errand(ObjectId("default", key), Trace(), deadline=1060) for key in ("me", "you"))

    def refused(errand: Errand, documents: int, rate: float | None = None) -> bool:
        parts = [part(documents, 100)]
        return limits.refuse(queue, errand, parts, running=0, rate=rate, now=1000) is not None

    with queue.parked(me.key, [part(60, 100), part(20, 300)]):
        assert (queue.documents, queue.tokens, bool(queue)) == (80, 400, False)
        assert refused(me, 21)
        assert not refused(me, 20)
        assert not refused(you, 50)  # its share
        assert refused(you, 51)
        assert refused(me, 1, rate=3)  # 33 seconds until its turn
    assert (queue.documents, queue.tokens) == (0, 0)
    assert not refused(me, 10_000)


@pytest.mark.parametrize(("rate", "seconds"), [(None, 5), (10.0, 30), (0.1, 60), (1000.0, 1)])
def test_when_to_ask_again(rate: float | None, seconds: int) -> None:
    assert limited({"me": (100, 290)}, (1, 100), rate=rate, running=10) == seconds


# How fast replicas are


def measured(completions: Sequence[tuple[float, int]], replicas: int = 1) -> float | None:
    throughput = Throughput()
    throughput.waits(something=True)
    for at, tokens in completions:
        throughput.done(tokens, replicas, at)
    return throughput.of_one


def test_speed_is_measured_while_something_waits() -> None:
    assert measured([(n * 0.1, 1000) for n in range(20)]) == pytest.approx(10_000, rel=0.01)
    assert measured([(n * 0.1, 1000) for n in range(20)], replicas=4) == pytest.approx(2500, rel=0.01)
    # It follows what changes.
    slower = [(n * 0.1, 1000) for n in range(100)] + [(10 + n, 1000) for n in range(60)]
    assert measured(slower) == pytest.approx(1000, rel=0.25)


def test_speed_is_unknown_until_it_is_seen() -> None:
    throughput = Throughput()
    for n in range(100):
        throughput.done(10, 1, n * 1.0)  # nothing waits: that is how fast requests come
    assert throughput.of_one is None
    for n in range(100):
        throughput.waits(something=True)
        throughput.done(10, 1, 100 + n * 1.0)  # begun before anything waited
        throughput.waits(something=False)
    assert throughput.of_one is None
    assert throughput.measured_at is None


# Second attempts


def test_second_attempts_are_a_share_of_the_first_ones_beyond_a_floor() -> None:
    budget = RetryBudget()
    spent = sum(budget.take(0.0) for _ in range(1000))
    assert spent == BURST
    for _ in range(100):
        budget.first_attempt()
    assert sum(budget.take(0.0) for _ in range(100)) == pytest.approx(10, abs=1)
    assert sum(budget.take(1.0) for _ in range(100)) == pytest.approx(PER_SECOND, abs=1)
