"""What is told of how fast a model is, and when that is worth a write."""

from datetime import UTC, datetime, timedelta

import pytest

from rerank_api.model_deployment import LatencyStatus, MeasuredStatus, ThroughputStatus
from rerank_operator.measurement import Figures, Latency, Memory, combined, merged, moved

NOW = datetime(2026, 11, 29, 12, 0, 0, 500_000, tzinfo=UTC)
NOTHING = MeasuredStatus()


def ago(seconds: float) -> datetime:
    return NOW.replace(microsecond=0) - timedelta(seconds=seconds)


def throughput(tokens: int, seconds_ago: float = 0) -> MeasuredStatus:
    return MeasuredStatus(throughput=ThroughputStatus(tokens_per_second=tokens, measured_at=ago(seconds_ago)))


def latency(median: float, p95: float, requests: int = 10, seconds_ago: float = 0) -> MeasuredStatus:
    return MeasuredStatus(
        latency=LatencyStatus(
            median_seconds=median, p95_seconds=p95, requests=requests, measured_at=ago(seconds_ago)
        )
    )


def speed(tokens: float | None, seconds_ago: float | None) -> Figures:
    return Figures(tokens, seconds_ago, None)


def took(median: float, p95: float, requests: int, seconds_ago: float) -> Figures:
    return Figures(None, None, Latency(median, p95, requests, seconds_ago))


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ([], NOTHING),
        ([speed(None, None)], NOTHING),
        ([speed(1000.4, 0)], throughput(1000)),
        ([speed(1000, 119)], throughput(1000, 119)),
        ([speed(1000, 121)], NOTHING),
        # They measured at the same time, so each got a part of what the replicas did.
        ([speed(600, 3), speed(400, 13), speed(None, None)], throughput(1000, 3)),
        ([speed(600, 3), speed(400, 14)], throughput(600, 3)),
        ([speed(600, 500), speed(400, 30)], throughput(400, 30)),
        ([speed(10_000, 30), speed(200, 3)], throughput(10_000, 3)),  # the newest had little to do
        ([speed(600, 115), speed(400, 124)], throughput(1000, 115)),
        ([took(0.0441, 0.1251, 7, 5)], latency(0.044, 0.13, 7, 5)),
        ([took(12.34, 123.4, 7, 119)], latency(12, 120, 7, 119)),
        ([took(0.04, 0.1, 7, 121)], NOTHING),
        ([took(0.1, 1.0, 30, 50), took(0.2, 3.0, 10, 4), speed(None, None)], latency(0.12, 1.5, 40, 4)),
        ([took(0.1, 1.0, 30, 590), took(0.2, 3.0, 10, 4)], latency(0.12, 1.5, 40, 4)),
        (
            [Figures(500.0, 60.0, Latency(1.0, 2.0, 3, 10.0))],
            merged(throughput(500, 60), latency(1.0, 2.0, 3, 10)),
        ),
    ],
)
def test_what_gateways_have_measured_together(told: list[Figures], wanted: MeasuredStatus) -> None:
    found = combined(told, NOW.replace(microsecond=0))
    assert found == wanted


def test_times_are_told_in_whole_seconds() -> None:
    found = combined([speed(1, 0.2)], NOW).throughput
    assert found is not None
    assert found.measured_at == ago(0)


@pytest.mark.parametrize(
    ("old", "new", "is_moved"),
    [
        (NOTHING, NOTHING, False),
        (NOTHING, throughput(1), True),
        (throughput(1), NOTHING, False),
        (throughput(1000), latency(1, 2), True),
        (throughput(1000), throughput(1000, 60), False),
        (throughput(1000), throughput(1199), False),
        (throughput(1000), throughput(1200), True),
        (throughput(1000), throughput(801), False),
        (throughput(1000), throughput(800), True),
        (throughput(0), throughput(0), False),
        (throughput(0), throughput(1), True),
        (latency(0.05, 2), latency(0.059, 2), False),
        (latency(0.05, 2), latency(0.06, 2), True),
        (latency(0.05, 2), latency(0.05, 2.4), True),
        (latency(0.05, 2), latency(0.05, 1.7), False),
        (latency(0.05, 2), latency(0.05, 2, requests=10_000), False),
        (merged(throughput(9), latency(1, 2)), latency(1, 2), False),
    ],
)
def test_a_fifth_is_a_change(old: MeasuredStatus, new: MeasuredStatus, is_moved: bool) -> None:
    assert moved(old, new) is is_moved


def test_what_is_not_new_stays() -> None:
    both = merged(throughput(9), latency(1, 2))
    assert merged(both, NOTHING) == both
    assert merged(both, throughput(10)) == merged(throughput(10), latency(1, 2))
    assert merged(both, latency(3, 4)) == merged(throughput(9), latency(3, 4))


def known(held: MeasuredStatus, written_seconds_ago: float | None) -> Memory:
    """Of a model whose status has this, and of which the same was seen."""
    written_at = None if written_seconds_ago is None else NOW - timedelta(seconds=written_seconds_ago)
    return Memory(held, held, "u", written_at)


@pytest.mark.parametrize(
    ("memory", "is_due", "is_over"),
    [
        (Memory(throughput(1)), True, False),
        (Memory(throughput(1)).read(NOTHING, "u"), True, False),
        (Memory(throughput(1)).read(throughput(1), "u"), False, True),
        (Memory(throughput(2)).read(throughput(1, 599), "u"), False, False),
        (Memory(throughput(2)).read(throughput(1, 600), "u"), True, False),
        (Memory(throughput(2)).read(throughput(1, -3600), "u"), True, False),
        (Memory(throughput(2)).read(merged(throughput(1, 700), latency(1, 2, 3, 10)), "u"), False, False),
        (known(throughput(1), 599).saw(throughput(2)), False, False),
        (known(throughput(1), 600).saw(throughput(2)), True, False),
        (known(throughput(1), 600).saw(latency(1, 2)), True, False),
        (known(merged(throughput(1), latency(1, 2)), 600).saw(throughput(2)).saw(latency(1, 2)), True, False),
        (known(throughput(1), 599), False, True),
        (known(throughput(1), 600), False, True),
        (known(NOTHING, None), False, True),
        # Somebody else took it away meanwhile. What was written when is known better than by its age.
        (known(throughput(1), 30).read(NOTHING, "u"), False, False),
        (known(throughput(1), 900).saw(throughput(2)).wrote(throughput(2), NOW), False, True),
    ],
)
def test_when_a_model_is_written(memory: Memory, is_due: bool, is_over: bool) -> None:
    assert (memory.is_due(NOW), memory.is_over) == (is_due, is_over)
