"""What a model's latency is told to be, by what its requests took and when."""

import math
import random

import pytest

from rerank_gateway.latency import Latency, LatencyFigures

# Seconds that each took, and when it was answered.
Answers = list[tuple[float, float]]


def figures(answers: Answers, now: float) -> LatencyFigures | None:
    latency = Latency()
    for seconds, at in answers:
        latency.took(seconds, at)
    return latency.figures(now)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("typical", [0.004, 0.05, 20.0])
@pytest.mark.parametrize("count", [1, 2, 19, 20, 1000])
def test_median_and_95th_percentile_are_right_within_a_twentieth(
    typical: float, spread: float, count: int
) -> None:
    spreading = random.Random(count)
    took = [max(0.001, spreading.lognormvariate(math.log(typical), spread)) for _ in range(count)]
    found = figures([(seconds, 7.0) for seconds in took], 9.0)
    assert found is not None
    took.sort()
    assert found.median_seconds == pytest.approx(took[math.ceil(0.5 * count) - 1], rel=0.05)
    assert found.p95_seconds == pytest.approx(took[math.ceil(0.95 * count) - 1], rel=0.05)
    assert (found.requests, found.seconds_ago) == (count, 2.0)


@pytest.mark.parametrize(
    ("times", "now", "requests"),
    [
        ([], 1000, None),
        ([0, 299], 299, 2),
        ([0, 300], 300, 2),
        ([0, 299, 599], 599, 3),
        ([0, 299, 600], 600, 1),
        ([0, 301, 601], 601, 2),
        ([0, 599, 800], 800, 2),
        ([0, 899], 899, 1),
        ([0, 5000], 5000, 1),
        ([0, 299], 899, 2),  # nothing came meanwhile that would count in their place
        ([0, 299], 900, None),
    ],
)
def test_old_requests_are_forgotten(times: list[float], now: float, requests: int | None) -> None:
    found = figures([(0.1, at) for at in times], now)
    assert (found and found.requests) == requests


def test_nothing_is_too_short_or_too_long_to_count() -> None:
    found = figures([(0.0, 0.0), (1e-9, 0.0), (1e9, 0.0)], 0.0)
    assert found is not None
    assert found.requests == 3
    assert found.median_seconds == pytest.approx(0.001, rel=0.05)
    assert found.p95_seconds > 3600
