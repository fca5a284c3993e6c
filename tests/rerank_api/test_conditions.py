from datetime import UTC, datetime

from rerank_api.conditions import Condition, Verdict, merge

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD = Condition(type="Ready", status="False", reason="Starting", last_transition_time=THEN)


def test_the_transition_time_stays_while_the_status_does() -> None:
    [merged] = merge([OLD], [Verdict(type="Ready", status="False", reason="Failed")], generation=2, now=NOW)
    assert (merged.reason, merged.last_transition_time, merged.observed_generation) == ("Failed", THEN, 2)


def test_the_transition_time_moves_with_the_status() -> None:
    [merged] = merge([OLD], [Verdict(type="Ready", status="True", reason="Serving")], generation=2, now=NOW)
    assert merged.last_transition_time == NOW


def test_a_condition_without_a_verdict_is_dropped() -> None:
    merged = merge([OLD], [Verdict(type="Serving", status="True", reason="Up")], generation=1, now=NOW)
    assert [condition.type for condition in merged] == ["Serving"]
