"""Waiting until every row is Ready, and knowing when to stop."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dev.demo.display import Display
from dev.demo.rows import Row


class GaveUpError(Exception):
    """Not everything got ready; the message says what stood in the way."""


@dataclass(frozen=True)
class Patience:
    """How long to go on, in seconds.

    Nothing changing at all for `stalled` ends the wait: a long download is no reason, a standstill is.
    A failure is given `failed` to heal, for the operator and the kubelet try again by themselves.
    """

    stalled: float = 600.0
    failed: float = 45.0
    every: float = 1.0


def follow(
    read: Callable[[], Sequence[Row]],
    shown: Display,
    patience: Patience = Patience(),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the rows until all are Ready.

    Raises:
        GaveUpError: patience ended.
    """
    before: Sequence[Row] = ()
    changed = healthy = clock()
    while True:
        rows = read()
        now = clock()
        shown.show(rows)
        if rows and all(row.ready for row in rows):
            return
        failed = [row for row in rows if row.failed]
        if rows != before:
            before, changed = rows, now
        if not failed:
            healthy = now
        if now - healthy > patience.failed:
            raise GaveUpError("; ".join(row.text() for row in failed))
        if now - changed > patience.stalled:
            waiting = "; ".join(row.text() for row in rows if not row.ready)
            raise GaveUpError(f"nothing has changed for {patience.stalled:.0f} s: {waiting}")
        sleep(patience.every)
