from typing import Any

import pytest

from rerank_gateway import limits
from rerank_gateway.limits import Limits, Verdict


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, None),
        ({}, None),
        ({"requestsPerMinute": None}, None),
        ({"requestsPerMinute": 1}, Limits((1, None, None))),
        ({"documentsPerMinute": 2, "tokensPerMinute": 3}, Limits((None, 2, 3))),
        ({"concurrentRequests": 4}, Limits(concurrent_requests=4)),
        ({"documentsPerRequest": 5}, Limits(documents_per_request=5)),
    ],
)
def test_a_spec_is_read(spec: dict[str, Any] | None, expected: Limits | None) -> None:
    assert Limits.parse(spec) == expected


@pytest.mark.parametrize("value", [0, -1, 1.5, "7", True])
def test_what_is_no_limit_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(ValueError, match=r"spec\.limits\.tokensPerMinute"):
        Limits.parse({"tokensPerMinute": value})


@pytest.mark.parametrize(
    ("limit", "consumed", "held", "price", "allowance", "expected"),
    [
        (10, 0, 0, 10, 10, Verdict.ADMIT),
        (10, 9, 0, 1, 1, Verdict.ADMIT),
        (10, 0, 5, 5, 5, Verdict.ADMIT),
        (10, 0, 0, 10, 3, Verdict.ASK),
        (10, 9, 0, 1, 0, Verdict.ASK),
        (10, 0, 6, 5, 5, Verdict.ASK),
        (10, 10, 0, 1, 3, Verdict.REFUSE),
        (10, 8, 0, 3, 3, Verdict.REFUSE),
        (10, 99, 9, 1, 0, Verdict.REFUSE),
    ],
)
def test_decisions(
    *, limit: int, consumed: int, held: int, price: int, allowance: int, expected: Verdict
) -> None:
    assert limits.decide(limit, consumed, held, price, allowance) is expected


@pytest.mark.parametrize(
    ("limit", "consumed", "replicas", "expected"),
    [(10, 0, 1, 10), (10, 0, 3, 3), (10, 4, 3, 2), (10, 9, 3, 0), (10, 12, 3, 0)],
)
def test_shares(limit: int, consumed: int, replicas: int, expected: int) -> None:
    assert limits.share(limit, consumed, replicas) == expected


@pytest.mark.parametrize(
    ("needed", "consumed", "now", "expected"),
    [
        (1, [(100, 1)], 100.9, 60),
        (1, [(100, 1)], 159.2, 1),
        (1, [(130, 5), (101, 1)], 140.0, 21),
        (2, [(130, 5), (101, 1)], 140.0, 50),
        (3, [(101, 1), (101, 1), (102, 1)], 140.0, 22),
        (1, [(100, 0), (120, 1)], 140.0, 40),
        (9, [(120, 1)], 140.0, 60),
        (1, [], 140.0, 60),
    ],
)
def test_waiting(needed: int, consumed: list[tuple[int, int]], now: float, expected: int) -> None:
    assert limits.seconds_until(needed, consumed, now) == expected
