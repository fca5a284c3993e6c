"""When the demo goes on waiting, and when it stops."""

from collections.abc import Iterator, Sequence

import pytest

from dev.demo.display import Lines
from dev.demo.follow import GaveUpError, Patience, follow
from dev.demo.rows import Row

PATIENCE = Patience(stalled=60, failed=10, every=1)


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Shown:
    def __init__(self) -> None:
        self.rows: list[Sequence[Row]] = []

    def show(self, rows: Sequence[Row]) -> None:
        self.rows.append(rows)


def run(states: Iterator[list[Row]]) -> tuple[float, Shown]:
    clock, shown = Clock(), Shown()
    follow(lambda: next(states), shown, PATIENCE, clock, clock.sleep)
    return clock.now, shown


def rows(*phases: str) -> list[Row]:
    return [Row(f"model/{number}", phase) for number, phase in enumerate(phases)]


def test_it_ends_when_all_are_ready() -> None:
    states = [rows("Pending", "Pending"), rows("Ready", "Starting"), rows("Ready", "Ready")]
    spent, shown = run(iter(states))
    assert spent == 2
    assert shown.rows == states


def test_nothing_at_all_is_not_ready() -> None:
    with pytest.raises(GaveUpError):
        run(iter([[]] * 100))


def test_a_failure_may_heal() -> None:
    states = [rows("Failed")] * 8 + [rows("Starting")] * 3 + [rows("Failed")] * 8 + [rows("Ready")]
    run(iter(states))


def test_a_lasting_failure_ends_it_with_the_reason() -> None:
    failed = [Row("model/one", "Failed", "RepositoryNotFound: no/such")]
    with pytest.raises(GaveUpError, match="RepositoryNotFound: no/such"):
        run(iter([failed] * 100))


def test_slow_progress_is_progress() -> None:
    states = ([Row("model/one", "Downloading", f"{percent} %")] * 50 for percent in range(100))
    spent, _ = run(iter([state for several in states for state in [several[:1]] * 50] + [rows("Ready")]))
    assert spent == 5000


def test_a_standstill_ends_it() -> None:
    with pytest.raises(GaveUpError, match="nothing has changed for 60 s: model/0: Starting"):
        run(iter([rows("Starting")] * 1000))


def test_without_a_terminal_each_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for state in (rows("Pending"), rows("Pending"), rows("Starting"), rows("Ready"), rows("Ready")):
        lines.show(state)
    printed = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["model/0: Pending", "model/0: Starting", "model/0: Ready"]
