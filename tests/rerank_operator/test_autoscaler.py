"""How many replicas: from what gateways tell, to a number. Time and load are the tests' own."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rerank_api.model_deployment import Autoscaling
from rerank_operator.autoscaler import STEP_SECONDS, Decision, Load, Look, Memory, decide

QUIET = Load("a" * 16, 0, 0, 0, 0, None, None, math.inf)
SPEED = 1000.0


def spec(**fields: Any) -> Autoscaling:
    return Autoscaling.model_validate({"minReplicas": 1, "maxReplicas": 8, **fields})


def load(**fields: Any) -> Load:
    """Of a gateway that was asked a moment ago and has measured 1,000 tokens a second."""
    return replace(
        QUIET, **{"tokens_per_second": SPEED, "measured_seconds_ago": 1.0, "idle_seconds": 0.5, **fields}
    )


def look(*loads: Load, **fields: Any) -> Look:
    usual: dict[str, Any] = {
        "current": 1,
        "ready": 1,
        "complete": True,
        "scaled_seconds_ago": math.inf,
        "now": 1000.0,
    }
    return Look(loads=loads, **{**usual, **fields})


def decided(of: Autoscaling, seen: Look, memory: Memory | None = None) -> Decision:
    return decide(of, seen, memory or Memory.begun(seen.now))[0]


@dataclass
class Model:
    """Looked at every second, as it is told to be then."""

    of: Autoscaling
    current: int = 1
    now: float = 1000.0
    scaled_at: float = -math.inf
    memory: Memory | None = None
    history: list[int] = field(default_factory=list)
    last: Decision | None = None

    def see(self, *loads: Load, seconds: int = 1, complete: bool = True, ready: int | None = None) -> int:
        """Look so many times; how many replicas there are in the end. All that are wanted serve at once."""
        for _ in range(seconds):
            self.now += 1
            seen = look(
                *loads,
                current=self.current,
                ready=self.current if ready is None else ready,
                complete=complete,
                scaled_seconds_ago=self.now - self.scaled_at,
                now=self.now,
            )
            decision, self.memory = decide(self.of, seen, self.memory or Memory.begun(self.now))
            if decision.replicas != self.current:
                self.current, self.scaled_at, self.last = decision.replicas, self.now, decision
                self.history.append(decision.replicas)
        return self.current

    def idle(self, seconds: int, *, since: float = 0.0, **how: Any) -> int:
        """Nobody asks for so long; the gateway counts it."""
        for second in range(seconds):
            self.see(load(idle_seconds=since + second + 1), **how)
        return self.current


# Growing


@pytest.mark.parametrize(
    ("fields", "loads", "wanted"),
    [
        ({}, [load(queued_tokens=900, running_tokens=100)], 1),  # 1 s for one replica is the target
        ({}, [load(queued_tokens=2900, running_tokens=100)], 3),
        ({}, [load(running_tokens=50_000)], 1),  # nothing waits
        ({"targetQueueSeconds": 10}, [load(queued_tokens=15_000)], 2),
        ({"targetQueueSeconds": 0.5}, [load(queued_tokens=1500)], 3),
        ({}, [load(queued_tokens=10**9)], 5),  # a step
        ({"maxReplicas": 2}, [load(queued_tokens=10**9)], 2),
        # Two gateways shared the replica while they measured.
        ({}, [load(queued_tokens=2000), load(process="b" * 16, queued_tokens=2000)], 2),
        # The other had it for itself, long ago.
        ({}, [load(queued_tokens=4000), load(process="b" * 16, measured_seconds_ago=99.0)], 4),
        # One that has not measured takes the other's speed.
        ({}, [replace(QUIET, queued_tokens=2500), load(process="b" * 16)], 3),
        ({}, [replace(QUIET, queued_tokens=10**9)], 2),  # nobody has
    ],
)
def test_as_many_replicas_as_work_off_in_time_what_waits(
    fields: dict[str, Any], loads: list[Load], wanted: int
) -> None:
    assert decided(spec(**fields), look(*loads)).replicas == wanted


def test_growth_says_why() -> None:
    decision = decided(spec(), look(load(queued_tokens=3000, running_tokens=200)))
    assert decision == Decision(4, "QueueTooLong", "3.2 s of work queued for 1 replica; the target is 1 s")
    unmeasured = decided(spec(), look(replace(QUIET, queued_tokens=1), current=2))
    assert unmeasured.message == "requests wait for 2 replicas, whose speed is not known yet"


def test_a_step_has_its_time_before_the_next() -> None:
    crowd = load(queued_tokens=10**9)
    model = Model(spec(maxReplicas=100))
    model.see(crowd, seconds=int(STEP_SECONDS))
    assert model.history == [5]
    model.see(crowd, seconds=2 * int(STEP_SECONDS))
    assert model.history == [5, 10, 20]


# Shrinking


def test_it_shrinks_when_fewer_were_enough_for_the_whole_delay() -> None:
    model = Model(spec(scaleDownDelaySeconds=60), current=4)
    assert model.see(load(idle_seconds=9), seconds=60) == 4
    assert model.see(load(idle_seconds=9), seconds=2) == 1
    assert model.last == Decision(1, "LessToDo", "1 replica is enough for what came in the last 60 s")


def test_it_keeps_the_most_that_were_needed_in_the_delay() -> None:
    model = Model(spec(scaleDownDelaySeconds=60), current=4)
    model.see(load(), seconds=50)
    model.see(load(queued_tokens=2500))
    assert model.see(load(), seconds=30) == 3
    assert model.see(load(), seconds=40) == 1


def test_replicas_that_keep_the_queue_short_are_not_too_many() -> None:
    """2,500 tokens a second take three replicas, and four where one needs a fifth of its time to spare."""
    model = Model(spec(scaleDownDelaySeconds=60), current=8)
    for second in range(300):
        model.see(load(read_tokens=2500 * second))
    assert model.current == 4


def test_without_a_speed_it_tries_one_less_at_a_time() -> None:
    model = Model(spec(scaleDownDelaySeconds=60), current=3)
    for second in range(200):
        model.see(replace(QUIET, idle_seconds=0.1, read_tokens=10 * second))
    assert model.history == [2, 1]


def test_a_new_leader_shrinks_nothing_before_a_full_delay() -> None:
    seen = look(load(idle_seconds=99_999), current=4)
    assert decided(spec(), seen).replicas == 4
    assert decided(spec(minReplicas=0), seen).replicas == 4


def test_a_gateway_that_is_silent_may_have_work() -> None:
    model = Model(spec(minReplicas=0, scaleDownDelaySeconds=10, idleSecondsToZero=20), current=4)
    assert model.idle(500, complete=False) == 4
    assert model.see(load(queued_tokens=6000), complete=False) == 6  # what is known still counts
    assert model.idle(5) == 6  # heard again; now the delay runs


# Zero


def test_to_zero_when_nobody_asked_for_long_enough() -> None:
    model = Model(spec(minReplicas=0, idleSecondsToZero=60), current=2)
    model.see(load(running_tokens=5))
    assert model.idle(59) == 2
    assert model.idle(2, since=60) == 0
    assert model.last == Decision(0, "Idle", "no request for 60 s")
    assert model.idle(500, since=62) == 0


def test_a_gateway_that_was_never_asked_has_no_say_but_must_answer() -> None:
    model = Model(spec(minReplicas=0, idleSecondsToZero=60))
    assert model.see(seconds=60, complete=False) == 1
    assert model.see(seconds=61) == 0


def test_not_to_zero_with_a_least_number() -> None:
    model = Model(spec(minReplicas=1), current=1)
    assert model.idle(2000) == 1


def test_not_to_zero_before_a_replica_came_up() -> None:
    """It takes longer to start than it may be idle: it would never serve anybody."""
    model = Model(spec(minReplicas=0, idleSecondsToZero=30))
    assert model.idle(300, ready=0) == 1
    assert model.idle(29, since=300) == 1
    assert model.idle(3, since=330) == 0


def test_the_first_look_after_a_start_is_no_word_of_the_time_before() -> None:
    """Looks are seconds apart; the replica came up somewhere between two of them."""
    model = Model(spec(minReplicas=0, idleSecondsToZero=5))
    model.idle(100, ready=0)
    model.now += 5
    assert model.idle(5, since=106) == 1
    assert model.idle(2, since=111) == 0


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (load(held_requests=1), 1),
        (load(held_requests=500), 1),
        (replace(QUIET, idle_seconds=3.0), 1),  # refused, because too many are held
        (load(idle_seconds=901), 0),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_from_zero_at_once(seen: Load, wanted: int, complete: bool) -> None:
    state = look(seen, current=0, ready=0, complete=complete, scaled_seconds_ago=0.0)
    assert decided(spec(minReplicas=0), state).replicas == wanted


# Limits


@pytest.mark.parametrize(("current", "wanted"), [(0, 2), (1, 2), (9, 4)])
def test_new_limits_count_at_once(current: int, wanted: int) -> None:
    decision = decided(spec(minReplicas=2, maxReplicas=4), look(current=current, complete=False))
    assert decision == Decision(wanted, "OutOfRange", "spec.autoscaling allows 2 to 4")


# Whatever comes

COUNTS = st.integers(0, 2**53)
LOADS = st.lists(
    st.builds(
        Load,
        process=st.sampled_from(["a" * 16, "b" * 16, "c" * 16]),
        queued_tokens=COUNTS,
        running_tokens=COUNTS,
        held_requests=COUNTS,
        read_tokens=COUNTS,
        tokens_per_second=st.none() | st.floats(0, 2**53),
        measured_seconds_ago=st.none() | st.floats(0, 2**53),
        idle_seconds=st.floats(0, 2**53),
    ),
    max_size=3,
)
SPECS = st.builds(
    lambda least, more, target, delay, idle: spec(
        minReplicas=least,
        maxReplicas=max(1, least + more),
        targetQueueSeconds=target,
        scaleDownDelaySeconds=delay,
        idleSecondsToZero=None if least else idle,
    ),
    st.integers(0, 4),
    st.integers(0, 20),
    st.floats(0.1, 3600),
    st.integers(0, 100),
    st.integers(1, 100),
)
ROUNDS = st.lists(st.tuples(LOADS, st.booleans(), st.integers(0, 30), st.floats(0, 60)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(SPECS, st.integers(0, 30), ROUNDS)
def test_whatever_is_told_it_stays_within_limits_and_misses_nothing(
    of: Autoscaling, current: int, rounds: list[tuple[list[Load], bool, int, float]]
) -> None:
    now, memory = 1000.0, Memory.begun(1000.0)
    for loads, complete, ready, passed in rounds:
        now += passed
        seen = look(*loads, current=current, ready=ready, complete=complete, now=now)
        decision, memory = decide(of, seen, memory)
        assert of.min_replicas <= decision.replicas <= of.max_replicas
        assert (decision.replicas != current) == bool(decision.reason and decision.message)
        if not complete:
            assert decision.replicas >= of.within(current)
        current = decision.replicas
        assert len(memory.peaks) <= of.max_replicas


@settings(max_examples=50, deadline=None)
@given(
    arriving=st.floats(0, 7.5),
    start=st.integers(1, 8),
    delay=st.integers(0, 60),
    target=st.floats(0.2, 5),
)
def test_a_constant_load_settles_and_stays(arriving: float, start: int, delay: int, target: float) -> None:
    """`arriving` in replicas' worth of work. Enough for it in the end, and never again another number."""
    assume(not 0 < arriving % 1 < 0.1)  # a hair too much for a number of replicas fills its queue too slowly
    model = Model(spec(scaleDownDelaySeconds=delay, targetQueueSeconds=target), current=start)
    queued, read, measured = 0.0, 0.0, math.inf
    for second in range(1200):
        can = model.current * SPEED
        does = min(queued + arriving * SPEED, can)
        queued, read = queued + arriving * SPEED - does, read + does
        measured = 0.0 if queued else measured + 1
        model.see(
            load(
                queued_tokens=math.ceil(queued),
                running_tokens=int(does / 4),
                read_tokens=int(read),
                tokens_per_second=SPEED if measured < math.inf else None,
                measured_seconds_ago=measured if measured < math.inf else None,
            )
        )
        if second == 900:
            model.history.clear()
    assert model.current >= arriving
    assert queued / SPEED / model.current <= target + 1
    assert model.history == []
