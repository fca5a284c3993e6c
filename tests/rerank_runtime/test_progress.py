"""How far a download is."""

from __future__ import annotations

import pytest

from rerank_runtime import progress


@pytest.mark.parametrize(
    ("seen", "done", "eta"),
    [
        ([], 0, None),
        ([(0.0, 0)], 0, None),
        ([(0.0, 0), (10.0, 100)], 100, 91),
        ([(0.0, 0), (10.0, 100), (40.0, 400), (70.0, 400)], 400, None),
        ([(0.0, 0), (10.0, 100), (40.0, 400), (70.0, 400), (80.0, 1000)], 1000, 0),
        ([(0.0, 0), (1.0, 1001)], 1000, 0),
    ],
)
def test_progress_estimates_from_the_last_half_minute(
    seen: list[tuple[float, int]], done: int, eta: int | None
) -> None:
    shown = progress.Progress(1000)
    for now, size in seen:
        shown.add(now, size)
    assert shown.done == done
    assert shown.eta_seconds == eta
