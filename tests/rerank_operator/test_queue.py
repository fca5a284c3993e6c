"""The queue: nothing is lost, nothing is done twice at once, failures wait longer each time."""

import asyncio
import random

import pytest

from rerank_operator.queue import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, KeyedQueue


async def empty(queue: KeyedQueue[str]) -> bool:
    try:
        await asyncio.wait_for(queue.take(), 0.05)
    except TimeoutError:
        return True
    return False


async def test_a_key_waits_once_however_often_it_is_added() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    assert [await queue.take(), await queue.take()] == ["a", "b"]
    assert await empty(queue)


async def test_a_key_at_work_is_taken_again_afterwards_not_meanwhile() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    await queue.take()
    queue.add("a")
    queue.add("a")
    assert await empty(queue)
    queue.done("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert await empty(queue)


async def test_a_waiting_taker_is_woken() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    taker = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(taker, 1) == "a"


async def test_the_earliest_of_several_delays_counts() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add_after("a", 30)
    queue.add_after("a", 0.02)
    queue.add_after("a", 60)
    assert await asyncio.wait_for(queue.take(), 1) == "a"
    queue.done("a")
    assert await empty(queue)


async def test_asking_now_cancels_the_delay() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add_after("a", 0.02)
    queue.add("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert await empty(queue)


async def test_a_delay_asked_for_while_the_key_waits_adds_nothing() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    queue.add_after("a", 0.01)
    assert await queue.take() == "a"
    queue.done("a")
    assert await empty(queue)


async def test_failures_wait_longer_each_time_until_one_succeeds() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    delays = [queue.retry("a") for _ in range(12)]
    for number, delay in enumerate(delays):
        longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0**number)
        assert 0.75 * longest <= delay <= longest
    assert queue.retry("b") <= FIRST_RETRY_SECONDS, "each key has its own"
    queue.forget("a")
    assert queue.retry("a") <= FIRST_RETRY_SECONDS


async def test_keys_are_taken_in_the_order_in_which_they_came() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    for key in "abc":
        queue.add(key)
    await queue.take()
    queue.add("a")
    queue.done("a")
    assert [await queue.take() for _ in range(3)] == ["b", "c", "a"]


async def test_a_key_that_can_wait_lets_others_go_first() -> None:
    queue: KeyedQueue[str] = KeyedQueue(can_wait=lambda key: 60.0 if key == "patient" else 0.0)
    queue.add("patient")
    assert await queue.take() == "patient", "nothing else waits"
    queue.add("patient")
    queue.done("patient")
    for key in "ab":
        queue.add(key)
    assert len(queue) == 3
    assert [await queue.take() for _ in range(3)] == ["a", "b", "patient"]


async def test_a_key_that_can_wait_lets_nothing_go_first_that_comes_later() -> None:
    queue: KeyedQueue[str] = KeyedQueue(can_wait=lambda key: 0.02 if key == "patient" else 0.0)
    queue.add("patient")
    queue.add("soon")
    await asyncio.sleep(0.03)
    queue.add("late")
    assert [await queue.take() for _ in range(3)] == ["soon", "patient", "late"]


async def test_groups_take_turns() -> None:
    """Whoever has one waits for as many as there are groups, not for all that another one has."""
    queue: KeyedQueue[str] = KeyedQueue(group=lambda key: key[0])
    for key in ("a1", "a2", "a3", "b1", "a4", "c1"):
        queue.add(key)
    taken = [await queue.take() for _ in range(3)]
    queue.add("b2")  # its group has had its turn
    taken += [await queue.take() for _ in range(4)]
    assert taken == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert len(queue) == 0
    assert await empty(queue)


@pytest.mark.parametrize("workers", [1, 5])
async def test_no_key_is_ever_at_two_workers(workers: int) -> None:
    queue: KeyedQueue[int] = KeyedQueue()
    at_work: set[int] = set()
    looked = 0
    idle = asyncio.Event()

    async def work() -> None:
        nonlocal looked
        while True:
            key = await queue.take()
            assert key not in at_work
            at_work.add(key)
            await asyncio.sleep(0)
            looked += 1
            at_work.discard(key)
            queue.done(key)
            if not len(queue) and not at_work:
                idle.set()

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    for number in range(1000):
        idle.clear()
        queue.add(number % 7)
        if number % 3 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(idle.wait(), 5)
    assert all(not task.done() for task in tasks)
    assert looked >= 7
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_longest_at_work() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    assert queue.longest_at_work() == (None, 0.0)
    queue.add("a")
    queue.add("b")
    await queue.take()
    await asyncio.sleep(0.02)
    await queue.take()
    key, seconds = queue.longest_at_work()
    assert key == "a"
    assert seconds >= 0.02
    queue.done("a")
    assert queue.longest_at_work()[0] == "b"
    queue.done("b")
    assert queue.longest_at_work() == (None, 0.0)


OURS, THEIRS = ("uid", "2"), ("uid", "3")


async def test_an_event_of_our_own_making_asks_for_nothing() -> None:
    queue: KeyedQueue[str] = KeyedQueue(own={OURS})
    queue.tell("a", OURS)
    assert await empty(queue)
    queue.tell("a", THEIRS)
    assert await queue.take() == "a"


@pytest.mark.parametrize(("told", "again"), [((OURS,), False), ((THEIRS,), True), ((OURS, THEIRS), True)])
async def test_whose_making_an_event_is_of_is_asked_when_the_work_is_done(
    told: tuple[tuple[str, str], ...], again: bool
) -> None:
    """It comes before the answer to the write that made it."""
    own: set[tuple[str, str]] = set()
    queue: KeyedQueue[str] = KeyedQueue(own)
    queue.add("a")
    await queue.take()
    for version in told:
        queue.tell("a", version)
    own.add(OURS)
    queue.done("a")
    assert await empty(queue) is not again


async def test_an_event_of_our_own_making_does_not_take_the_place_of_a_retry() -> None:
    queue: KeyedQueue[str] = KeyedQueue(own={OURS})
    queue.add("a")
    await queue.take()
    queue.tell("a", OURS)
    queue.add_after("a", 0.01)
    queue.done("a")
    assert await asyncio.wait_for(queue.take(), 5) == "a"


async def test_what_was_told_during_one_look_is_not_told_of_the_next() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    await queue.take()
    queue.tell("a", THEIRS)
    queue.done("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert await empty(queue)


async def test_news_and_a_wish_for_another_look_are_one_look() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    await queue.take()
    queue.add("a")
    queue.tell("a", THEIRS)
    queue.done("a")
    assert await asyncio.wait_for(queue.take(), 5) == "a"
    queue.done("a")
    assert await empty(queue)


@pytest.mark.parametrize("seed", range(0, 1000, 100))
async def test_in_any_order_what_is_asked_for_comes_and_nothing_else(seed: int) -> None:
    for each in range(seed, seed + 100):
        await _in_some_order(random.Random(each))


async def _in_some_order(chance: random.Random) -> None:
    own: set[tuple[str, str]] = set()
    queue: KeyedQueue[str] = KeyedQueue(own, can_wait=lambda _: chance.choice([0.0, 60.0]))
    asked: set[str] = set()
    working: set[str] = set()
    for number in range(60):
        key, step = chance.choice("abc"), chance.random()
        if step < 0.3:
            queue.add(key)
            asked.add(key)
        elif step < 0.6:
            version = ("uid", str(number))
            queue.tell(key, version)
            if key in working and chance.random() < 0.5:
                own.add(version)  # its work wrote that, and has the answer now
            else:
                asked.add(key)
        elif step < 0.8 and len(queue) > 0:
            taken = await queue.take()
            assert taken not in working
            working.add(taken)
            asked.discard(taken)
        elif working:
            done = chance.choice(sorted(working))
            working.discard(done)
            queue.done(done)
    for key in working:
        queue.done(key)
    left = [await queue.take() for _ in range(len(queue))]
    assert sorted(left) == sorted(asked)
