import pytest

from rerank_gateway.errors import ApiError
from rerank_gateway.in_flight import InFlight


def test_what_is_held_is_counted_and_given_back() -> None:
    held = InFlight(100)
    held.take(10, "a")
    held.add(500, "a")  # an answer is never refused
    assert held.bytes == 510
    held.give_back(510, "a")
    assert held.bytes == 0
    held.take(80, "a")


def test_who_holds_nothing_is_forgotten() -> None:
    held = InFlight(100)
    held.take(0, "a")
    held.take(1, "b")
    held.give_back(1, "b")
    assert held._held == {}


def test_what_finds_no_room_is_refused_for_now() -> None:
    held = InFlight(100)
    with pytest.raises(ApiError) as refused:
        held.take(81, "a")
    assert refused.value.status == 503
    assert (b"retry-after", b"1") in refused.value.headers
    assert held.bytes == 0


@pytest.mark.parametrize(("greedy", "left_for_the_next"), [(1, 16), (2, 8), (9, 2)])
def test_those_who_hold_much_leave_room_for_who_comes_next(greedy: int, left_for_the_next: int) -> None:
    held = InFlight(100)
    takers = {f"key-{number}" for number in range(greedy)}
    while takers:
        for taker in sorted(takers):
            try:
                held.take(1, taker)
            except ApiError:
                takers.discard(taker)
    held.take(left_for_the_next, "newcomer")
