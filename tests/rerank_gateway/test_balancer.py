"""Which replica gets a request, and which are left alone."""

import random
from collections import Counter

import pytest

from rerank_gateway import balancer, ejection
from rerank_gateway.balancer import Preference, Replica
from rerank_gateway.ejection import Health
from rerank_gateway.records import Address


def replica(host: str, tokens: int = 0, requests: int = 0, aside: float = 0) -> Replica:
    return Replica(Address(host, 8000), tokens, requests, Health(until=aside))


def hosts(replicas: list[Replica], now: float) -> set[str]:
    return {found.address.host for found in balancer.usable(replicas, now)}


def chosen(replicas: list[Replica], preference: Preference | None = None) -> Counter[str]:
    rng = random.Random(1)
    found = [balancer.choose(replicas, rng, preference) for _ in range(300)]
    return Counter(one.address.host for one in found if one is not None)


def test_the_less_loaded_of_two_is_chosen_and_ties_are_shared_out() -> None:
    counts = chosen([replica("a", 5), replica("b", 2), replica("c", 2)])
    assert set(counts) == {"b", "c"}  # the busiest is never the less loaded of two
    assert min(counts.values()) > 100


def test_there_may_be_nobody_to_choose() -> None:
    assert balancer.choose([], random.Random(1)) is None


def test_those_set_aside_are_the_last_resort() -> None:
    replicas = [replica("a", aside=10.0), replica("b")]
    assert hosts(replicas, 9.9) == {"b"}
    assert hosts(replicas, 10.0) == {"a", "b"}
    assert hosts([replica("a", aside=10.0), replica("b", aside=20.0)], 9.9) == {"a", "b"}


@pytest.mark.parametrize(
    ("tokens", "requests", "more", "room"),
    [
        (0, 0, 100, True),
        (50, 1, 50, True),
        (50, 1, 51, False),
        (0, 0, 1000, True),  # one request always, of any size
        (1, 1, 1000, False),
        (1, balancer.MAX_REQUESTS, 1, False),
    ],
)
def test_the_window(tokens: int, requests: int, more: int, room: bool) -> None:
    assert replica("a", tokens, requests).has_room(more, window=100) is room


def test_a_query_goes_where_it_went_before_while_that_is_not_busier() -> None:
    replicas = [replica(host) for host in "abc"]
    where = {query: chosen(replicas, Preference(query, 10)) for query in map(str, range(60))}
    assert all(len(counts) == 1 for counts in where.values())
    assert {host for counts in where.values() for host in counts} == set("abc")
    # One of them goes: the queries of the others stay.
    for query, counts in where.items():
        if "a" not in counts:
            assert chosen(replicas[1:], Preference(query, 10)) == counts
    # It is busier than the others, by less than the slack and by more.
    first = next(one for one in replicas if one.address.host in where["1"])
    first.tokens_in_flight = 10
    assert set(chosen(replicas, Preference("1", 10))) == {first.address.host}
    first.tokens_in_flight = 11
    assert first.address.host not in chosen(replicas, Preference("1", 10))


# Ejection


def test_one_failure_sets_aside_and_three_in_a_row_eject_for_longer_each_time() -> None:
    health, now, seconds = Health(), 100.0, []
    for _ in range(8):
        ejected = health.failed(now, now)
        seconds.append(health.until - now)
        assert ejected is (len(seconds) >= ejection.FAILURES)
        now = health.until
    assert seconds == [2, 2, 5, 10, 20, 40, 60, 60]
    assert not health.aside(now)


def test_an_answer_ends_the_row() -> None:
    health = Health()
    for _ in range(5):
        assert not health.failed(0.0, 0.0)
        assert not health.failed(0.0, 0.0)
        health.answered()


def test_requests_that_fail_together_eject_once() -> None:
    health = Health()
    assert [health.failed(1.0, 2.0) for _ in range(20)].count(True) == 1
    assert health.until == 2.0 + ejection.FIRST_SECONDS


def test_what_is_about_to_stop_is_left_alone_without_a_failure() -> None:
    health = Health()
    for _ in range(9):
        health.leave_alone(1.0)
    assert (health.failures, health.aside(2.9), health.aside(3.0)) == (0, True, False)
