"""When a hub is waited for no longer, with a clock of our own."""

from __future__ import annotations

import pytest

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.patience import LONGEST_HOLD, SLOWEST, HubError, Patience, StoppedError

DOWN = Failure(Reason.HUB_UNREACHABLE, "down", retriable=True)
LIMITED = Failure(Reason.HUB_RATE_LIMITED, "limited", retriable=True)
GONE = Failure(Reason.REPOSITORY_NOT_FOUND, "gone")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def patience(clock: Clock, total: int = 10**9) -> Patience:
    return Patience("https://hub.test", 30.0, total=total, first_wait=0.0, clock=clock)


def test_silence_ends_it(clock: Clock) -> None:
    waiting = patience(clock)
    clock.now = 30.0
    waiting.judge()
    clock.now = 30.1
    with pytest.raises(Failure, match="sent nothing within 30 s") as given_up:
        waiting.judge()
    assert given_up.value.reason == Reason.HUB_UNREACHABLE


def test_what_arrives_begins_it_anew_and_a_trickle_does_not(clock: Clock) -> None:
    waiting = patience(clock)
    for second in range(1, 200):
        clock.now = float(second)
        waiting.moved("a", second * SLOWEST)
        waiting.judge()

    def trickle() -> None:
        for second in range(200, 300):
            clock.now = float(second)
            waiting.moved("a", 199 * SLOWEST + second)
            waiting.judge()

    with pytest.raises(Failure, match="bytes within 30 s"):
        trickle()


def test_the_last_bytes_need_not_be_many(clock: Clock) -> None:
    waiting = patience(clock, total=10)
    clock.now = 29.0
    waiting.moved("a", 10)
    waiting.judge()
    clock.now = 58.0
    waiting.judge()


def test_bytes_that_were_there_before_are_no_news(clock: Clock) -> None:
    waiting = patience(clock)
    waiting.moved("a", 10**8)
    waiting.judge()
    clock.now = 20.0
    waiting.moved("a", 10)
    waiting.judge()
    assert waiting.done == 10**8
    clock.now = 31.0
    waiting.moved("a", 10**8)
    with pytest.raises(Failure):
        waiting.judge()


def test_beginning_at_zero_is_allowed_a_few_times(clock: Clock) -> None:
    waiting = patience(clock)
    for _ in range(3):
        waiting.moved("a", 10**8)
        waiting.judge()
        clock.now += 29.0
        waiting.again("a")
        clock.now += 29.0
        waiting.judge()
    waiting.moved("a", 10**8)
    waiting.judge()
    waiting.again("a")
    clock.now += 31.0
    waiting.moved("a", 10**7)
    with pytest.raises(Failure):
        waiting.judge()


def test_the_disk_is_not_the_hub(clock: Clock) -> None:
    waiting = patience(clock)
    with waiting.busy():
        clock.now = 1000.0
        waiting.judge()
    clock.now = 1029.0
    waiting.judge()


def test_a_hub_may_ask_for_time_but_not_for_ever(clock: Clock) -> None:
    waiting = patience(clock)
    waiting._note(HubError(LIMITED, transient=True, hold=LONGEST_HOLD - 1))
    clock.now = LONGEST_HOLD - 2
    waiting.judge()
    assert waiting.holding is LIMITED
    clock.now = LONGEST_HOLD
    assert waiting.holding is None
    with pytest.raises(Failure) as given_up:
        waiting._note(HubError(LIMITED, transient=True, hold=2.0))
    assert given_up.value is LIMITED


def test_what_the_hub_said_last_is_told(clock: Clock) -> None:
    waiting = patience(clock)
    waiting._note(HubError(DOWN, transient=True))
    clock.now = 31.0
    with pytest.raises(Failure) as given_up:
        waiting.judge()
    assert given_up.value is DOWN


def test_trying_again_where_it_helps(clock: Clock) -> None:
    answers = iter([HubError(DOWN, transient=True), HubError(DOWN, transient=True), None])

    def call() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "there"

    assert patience(clock).keep_trying(call) == "there"


def test_not_trying_again_where_it_does_not(clock: Clock) -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise HubError(GONE)

    with pytest.raises(Failure) as refusal:
        patience(clock).keep_trying(call)
    assert refusal.value is GONE
    assert len(calls) == 1


def test_stopped_threads_end(clock: Clock) -> None:
    waiting = patience(clock)
    waiting.check()

    def call() -> None:
        waiting.stop()
        raise HubError(DOWN, transient=True)

    with pytest.raises(StoppedError):
        waiting.keep_trying(call)
    with pytest.raises(StoppedError):
        waiting.check()
