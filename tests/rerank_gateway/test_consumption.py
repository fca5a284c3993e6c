"""Counters that merge: in any order, any number of times, from whomever."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_gateway import consumption
from rerank_gateway.consumption import Consumption, MalformedError
from rerank_gateway.limits import NOTHING, Amount

NOW = 1_800_000_000.0
KEY = "default/search"
FIVE = Amount(1, 5, 50)


def heard(by: Consumption, of: Consumption, *, since: int = 0, name: str = "", now: float = NOW) -> int:
    """Let one replica learn from another. Returns how far it has heard now."""
    answer = consumption.parse(of.tell(since, name, now))
    by.merge(answer, now)
    return answer.sequence


def test_what_was_taken_is_counted_for_a_minute() -> None:
    a = Consumption("a")
    a.take(KEY, FIVE, NOW)
    a.take(KEY, FIVE, NOW + 30)
    assert a.consumed(KEY, NOW + 59.9) == (2, 10, 100)
    assert a.consumed(KEY, NOW + 60) == (1, 5, 50)
    assert a.consumed(KEY, NOW + 90) == (0, 0, 0)


def test_what_is_given_back_counts_no_more_in_its_slot() -> None:
    a = Consumption("a")
    slot = a.take(KEY, FIVE, NOW)
    a.take(KEY, FIVE, NOW + 1)
    a.give_back(KEY, slot, Amount(0, 5, 20), NOW + 1)
    assert a.consumed(KEY, NOW + 1) == (2, 5, 80)
    assert a.consumed(KEY, NOW + 60) == (1, 5, 50)
    a.give_back(KEY, slot, Amount(0, 0, 30), NOW + 60)
    assert a.consumed(KEY, NOW + 60) == (1, 5, 50)


def test_keys_are_counted_apart() -> None:
    a = Consumption("a")
    a.take(KEY, FIVE, NOW)
    assert a.consumed("default/other", NOW) == (0, 0, 0)


def test_replicas_add_up_wherever_one_asks() -> None:
    a, b = Consumption("a"), Consumption("b")
    a.take(KEY, FIVE, NOW)
    b.give_back(KEY, b.take(KEY, FIVE, NOW), Amount(0, 1, 1), NOW)
    heard(a, of=b)
    heard(b, of=a)
    assert a.consumed(KEY, NOW) == b.consumed(KEY, NOW) == (2, 9, 99)
    assert a.consumed_by("b", KEY, NOW) == (1, 4, 49)
    assert sorted(a.slots(KEY, 1, NOW)) == [(int(NOW), 4), (int(NOW), 5)]


def test_only_what_changed_is_told_again() -> None:
    a, b = Consumption("a"), Consumption("b")
    b.take("default/one", FIVE, NOW)
    b.take("default/two", FIVE, NOW)
    since = heard(a, of=b)
    b.take("default/two", FIVE, NOW + 1)
    answer = json.loads(b.tell(since, "b", NOW + 1))
    assert answer["keys"] == {"default/two": [0, [0, 0, 0, 0], {str(int(NOW) + 1): [1, 5, 50, 0, 0, 0]}]}
    assert "remembered" not in answer
    heard(a, of=b, since=since, name="b", now=NOW + 1)
    assert a.consumed("default/two", NOW + 1) == (2, 10, 100)
    assert json.loads(b.tell(answer["sequence"], "b", NOW + 1))["keys"] == {}


def test_more_keys_than_fit_into_one_answer_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumption, "MAX_KEYS", 2)
    a, b = Consumption("a"), Consumption("b")
    for number in range(5):
        b.take(f"default/{number}", FIVE, NOW)
    since = heard(a, of=b)
    for _ in range(2):
        since = heard(a, of=b, since=since, name="b")
    assert [a.consumed(f"default/{number}", NOW).documents for number in range(5)] == [5] * 5


def test_a_newcomer_learns_of_those_that_are_gone() -> None:
    gone, remembering, newcomer = Consumption("x"), Consumption("a"), Consumption("n")
    gone.take(KEY, FIVE, NOW)
    heard(remembering, of=gone)
    heard(newcomer, of=remembering, now=NOW + 30)
    assert newcomer.consumed(KEY, NOW + 30) == (1, 5, 50)
    assert newcomer.consumed(KEY, NOW + 60) == (0, 0, 0)


def test_a_replica_that_restarted_tells_everything_and_learns_nothing_of_itself() -> None:
    a, before = Consumption("a"), Consumption("b")
    before.take(KEY, FIVE, NOW)
    since = heard(a, of=before)
    after = Consumption("b2")
    after.take(KEY, FIVE, NOW)
    heard(a, of=after, since=since, name="b")
    heard(after, of=a)
    assert a.consumed(KEY, NOW) == after.consumed(KEY, NOW) == (2, 10, 100)
    heard(after, of=a)
    heard(a, of=a)
    assert after.consumed(KEY, NOW) == a.consumed(KEY, NOW) == (2, 10, 100)


def test_requests_in_flight_are_known_from_their_replica_alone_and_go_with_it() -> None:
    a, b, c = (Consumption(name) for name in "abc")
    b.enter(KEY, NOW)
    b.enter(KEY, NOW)
    since = heard(a, of=b)
    assert a.in_flight(KEY) == (0, 2)
    heard(c, of=a)
    assert c.in_flight(KEY) == (0, 0)
    b.leave(KEY, NOW)
    heard(a, of=b, since=since, name="b")
    assert a.in_flight(KEY) == (0, 1)
    a.forget_present("b")
    assert (a.in_flight(KEY), b.in_flight(KEY)) == ((0, 0), (1, 0))
    heard(a, of=b)
    b.leave(KEY, NOW)
    b.prune(NOW + 60)
    heard(a, of=b)  # the whole of it, in which the key is no more
    assert a.in_flight(KEY) == (0, 0)


def test_what_a_replica_holds_is_known_while_it_holds_it() -> None:
    a, b, c = (Consumption(name) for name in "abc")
    for replica, prices in ((a, (1, 0, 0, 1)), (c, (0, 5, 50, 0))):
        replica.hold(KEY, prices, NOW)
        heard(b, of=replica)
    assert (b.held(KEY), b.consumed(KEY, NOW)) == ((1, 5, 50, 1), (0, 0, 0))
    assert not b.is_first(KEY)
    a.hold(KEY, NOTHING, NOW)
    heard(b, of=a)
    assert (b.held(KEY), b.is_first(KEY)) == ((0, 5, 50, 0), True)
    c.prune(NOW + 60)
    heard(b, of=c)
    assert b.held(KEY) == (0, 5, 50, 0)
    b.forget_present("c")
    assert (b.held(KEY), b.is_first(KEY)) == (NOTHING, True)


def test_nothing_is_kept_of_what_is_a_minute_old() -> None:
    a, b = Consumption("a"), Consumption("b")
    for replica in (a, b):
        replica.take(KEY, FIVE, NOW)
        replica.take("default/busy", FIVE, NOW)
    b.enter("default/busy", NOW)
    heard(b, of=a)
    b.prune(NOW + 60)
    assert (list(b._own), b._others, b._own["default/busy"].changed) == (["default/busy"], {}, {})


@pytest.mark.parametrize("off", [-60, 60])
def test_a_clock_that_is_a_minute_off_does_not_count(off: float) -> None:
    a, b = Consumption("a"), Consumption("b")
    b.take(KEY, FIVE, NOW + off)
    a.merge(consumption.parse(b.tell(0, "", NOW + off)), NOW)
    assert a.consumed(KEY, NOW) == (0, 0, 0)


SLOT = str(int(NOW))
HELD = [0, 0, 0, 0]
GOOD: dict[str, Any] = {
    "replica": "b",
    "sequence": 1,
    "complete": True,
    "keys": {KEY: [1, HELD, {SLOT: [1, 5, 50, 0, 0, 0]}]},
    "remembered": {"x": {KEY: {SLOT: [1, 5, 50, 0, 0, 0]}}},
}


def test_the_form_of_an_answer() -> None:
    a, x = Consumption("b"), Consumption("x")
    x.take(KEY, FIVE, NOW)
    heard(a, of=x)
    a.take(KEY, FIVE, NOW)
    a.enter(KEY, NOW)
    assert json.loads(a.tell(0, "", NOW)) == {**GOOD, "sequence": 2}


WRONG: list[dict[str, Any]] = [
    {"replica": 7},
    {"replica": ""},
    {"sequence": -1},
    {"sequence": "1"},
    {"keys": []},
    {"keys": {KEY: [1, HELD]}},
    {"keys": {KEY: [-1, HELD, {}]}},
    {"keys": {KEY: [True, HELD, {}]}},
    {"keys": {KEY: [1, [0, 0, 0], {}]}},
    {"keys": {KEY: [1, [0, 0, 0, None], {}]}},
    {"keys": {KEY: [1, 7, {}]}},
    {"keys": {"k" * 321: [1, HELD, {}]}},
    {"keys": {KEY: [1, HELD, {"now": [1, 5, 50, 0, 0, 0]}]}},
    {"keys": {KEY: [1, HELD, {SLOT: [1, 5, 50]}]}},
    {"keys": {KEY: [1, HELD, {SLOT: [1, 5, 50, 0, 6, 0]}]}},
    {"keys": {KEY: [1, HELD, {SLOT: [1, 5, 2**60, 0, 0, 0]}]}},
    {"keys": {KEY: [1, HELD, {SLOT: [1, 5, 0.5, 0, 0, 0]}]}},
    {"keys": {KEY: [1, HELD, {SLOT: 7}]}},
    {"remembered": {"x": {KEY: [1]}}},
    {"remembered": 7},
]


@pytest.mark.parametrize(
    "body",
    [b"", b"ready\n", b"[]", b"{}", *(json.dumps({**GOOD, **wrong}).encode() for wrong in WRONG)],
)
def test_a_malformed_answer_is_refused_whole(body: bytes) -> None:
    with pytest.raises(MalformedError):
        consumption.parse(body)


# Any history of three replicas, and any exchange of what they told meanwhile.
REPLICAS = ("a", "b", "c")
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from(REPLICAS), st.integers(0, 30)),
        st.tuples(st.just("back"), st.sampled_from(REPLICAS), st.integers(0, 30)),
        st.tuples(st.just("tell"), st.sampled_from(REPLICAS), st.integers(0, 99)),
    ),
    max_size=40,
)


@given(ACTIONS, st.randoms(use_true_random=False))
def test_merging_is_commutative_idempotent_and_monotone(
    actions: list[tuple[str, str, int]], rng: Any
) -> None:
    replicas = {name: Consumption(name) for name in REPLICAS}
    told: list[bytes] = []
    for action, name, number in actions:
        replica = replicas[name]
        if action == "take":
            replica.take(KEY, Amount(1, number, 0), NOW + number)
        elif action == "back":
            for slot, counts in list(replica._own[KEY].slots.items() if KEY in replica._own else ()):
                spare = counts[1] - counts[4]
                replica.give_back(KEY, slot, Amount(0, min(number, spare), 0), NOW + 30)
        else:
            told.append(replica.tell(0, "", NOW + 30))
            if told and number % 2:
                replicas[REPLICAS[number % 3]].merge(consumption.parse(told[number % len(told)]), NOW + 30)
    told += [replica.tell(0, "", NOW + 30) for replica in replicas.values()]
    expected = sum(
        counts[1] - counts[4]
        for r in replicas.values()
        for own in r._own.values()
        for counts in own.slots.values()
    )
    for _ in range(3):
        order = told * 2
        rng.shuffle(order)
        reader = Consumption("reader")
        requests = 0
        for body in order:
            reader.merge(consumption.parse(body), NOW + 30)
            assert reader.consumed(KEY, NOW + 30).requests >= requests  # nothing is ever unlearnt
            requests = reader.consumed(KEY, NOW + 30).requests
        assert reader.consumed(KEY, NOW + 30).documents == expected
