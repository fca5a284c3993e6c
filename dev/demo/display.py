"""What the person at the terminal sees: rows that change in place, or lines where there is no terminal."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from dev.demo.panda import Ranked
from dev.demo.rows import Row

STYLES = {"Ready": "green", "Failed": "red"}
LINE_SECONDS = 5.0


class Display(Protocol):
    """Shows the rows of now."""

    def show(self, rows: Sequence[Row]) -> None: ...


class Lines:
    """One line where a phase changes, and now and then where only the detail does."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[Row, float]] = {}
        self._start = time.monotonic()

    def show(self, rows: Sequence[Row]) -> None:
        now = time.monotonic()
        for row in rows:
            before, at = self._shown.get(row.name, (None, 0.0))
            if row == before or (before and row.phase == before.phase and now - at < LINE_SECONDS):
                continue
            print(f"[{now - self._start:4.0f}s] {row.text()}", flush=True)
            self._shown[row.name] = (row, now)


class Grid:
    """Rows that are redrawn in place, with the seconds since each phase began."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._since: dict[tuple[str, str], float] = {}

    def show(self, rows: Sequence[Row]) -> None:
        now = time.monotonic()
        grid = Table.grid(padding=(0, 2))
        for row in rows:
            since = self._since.setdefault((row.name, row.phase), now)
            spent = "" if row.ready else f"{now - since:.0f} s"
            phase = f"[{STYLES.get(row.phase, 'yellow')}]{row.phase}[/]"
            grid.add_row(row.name, phase, spent, row.detail)
        self._live.update(grid, refresh=True)


@contextmanager
def display() -> Iterator[Display]:
    """The display that suits standard output."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    with Live(console=Console(), auto_refresh=False) as live:
        yield Grid(live)


def table(ranked: Sequence[Ranked]) -> Table:
    """The ranking as a table."""
    drawn = Table("rank", "score", "document")
    for rank, entry in enumerate(ranked, start=1):
        drawn.add_row(str(rank), f"{entry.score:.4f}", entry.document)
    return drawn
