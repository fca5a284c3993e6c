"""How long a hub is waited for: shared by the threads of one download, and by the one that watches them.

A hub may be down, slow, or ask to be left alone for a while. What counts is whether bytes arrive that were
not there before: beginning at zero again and again is no progress.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rerank_runtime.failure import Failure, Reason

T = TypeVar("T")

# Below this a download would last for days: such a hub counts as silent. Bytes a second.
SLOWEST = 1024
# Seconds that a hub may ask to be left alone in all before anything moves again. The public hub's rate limit
# is counted over five minutes (https://huggingface.co/docs/hub/rate-limits).
LONGEST_HOLD = 600.0
_LONGEST_WAIT = 8.0
_RESTARTS = 3


class HubError(Exception):
    """Something went wrong between the hub and us.

    Args:
        failure: What it is if it stays so.
        transient: Whether to try again now.
        hold: Seconds for which the hub asks to be left alone, if it does.
    """

    def __init__(self, failure: Failure, *, transient: bool = False, hold: float | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.transient = transient
        self.hold = hold


class StoppedError(Exception):
    """The download was given up by the thread that watches it."""


class Patience:
    """Counts what arrives and decides when to give up.

    Args:
        hub: The hub's address, for messages.
        seconds: How long the hub may be silent.
        total: Bytes to come, 0 for a mere question.
        first_wait: Seconds before the second try.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        hub: str,
        seconds: float,
        *,
        total: int = 0,
        first_wait: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub, self._seconds, self._total = hub, seconds, total
        self._first_wait, self._clock = first_wait, clock
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._most: dict[str, int] = {}
        self._restarts: dict[str, int] = {}
        self._busy = 0
        self._held_until = self._held = 0.0
        self._last: Failure | None = None
        self._mark = (clock(), 0)

    @property
    def done(self) -> int:
        """Bytes that are there or were there."""
        with self._lock:
            return sum(self._most.values())

    def moved(self, name: str, count: int) -> None:
        """A file has so many bytes now. Fewer than before are no news."""
        with self._lock:
            self._most[name] = max(self._most.get(name, 0), count)

    def again(self, name: str) -> None:
        """A file begins at zero again. A few times that is a new start; from then on it is none."""
        with self._lock:
            self._restarts[name] = self._restarts.get(name, 0) + 1
            if self._restarts[name] <= _RESTARTS:
                self._most[name] = 0
                self._mark = (self._clock(), sum(self._most.values()))

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While the block works on the disk, the hub is not to blame for silence."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._mark = (self._clock(), sum(self._most.values()))

    def stop(self) -> None:
        """Let the threads end at their next step."""
        self._stopped.set()

    def check(self) -> None:
        """Go on, unless the download was given up.

        Raises:
            StoppedError: It was.
        """
        if self._stopped.is_set():
            raise StoppedError

    def keep_trying(self, call: Callable[[], T]) -> T:
        """Call until it succeeds. Without end: it is `judge` that gives up, and `stop`.

        Raises:
            Failure: Trying again would not help.
            StoppedError: The download was given up.
        """
        pause = self._first_wait
        while True:
            before = self.done
            try:
                return call()
            except HubError as error:
                if not error.transient:
                    raise error.failure from error
                self._note(error)
                pause = self._first_wait if self.done > before else pause
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_WAIT)

    def judge(self) -> None:
        """Give up on a hub that has been silent for too long. To be called every now and then.

        Raises:
            Failure: What it last said, or that it says nothing.
        """
        with self._lock:
            now, done = self._clock(), sum(self._most.values())
            since, before = self._mark
            needed = max(1, min(self._total - before, int(SLOWEST * self._seconds)))
            if done - before >= needed:
                self._mark, self._held, self._last = (now, done), 0.0, None
            elif self._busy or now < self._held_until:
                self._mark = (now, before)
            elif now - since > self._seconds:
                raise self._last or self._silent(done - before)

    @property
    def holding(self) -> Failure | None:
        """What the hub said when it asked to be left alone, while that lasts."""
        with self._lock:
            return self._last if self._clock() < self._held_until else None

    def _note(self, error: HubError) -> None:
        with self._lock:
            self._last = error.failure
            if error.hold is None:
                return
            self._held += error.hold
            if self._held > LONGEST_HOLD:
                raise error.failure
            self._held_until = max(self._held_until, self._clock() + error.hold)

    def _sleep(self, pause: float) -> None:
        while True:
            with self._lock:
                left = self._held_until - self._clock()
            if self._stopped.wait(max(pause, left)):
                raise StoppedError
            pause = 0.0
            # Another thread may have been told to wait longer in the meantime.
            with self._lock:
                if self._clock() >= self._held_until:
                    return

    def _silent(self, few: int) -> Failure:
        what = f"sent {few} bytes" if few else "sent nothing"
        return Failure(
            Reason.HUB_UNREACHABLE,
            f"The hub {self._hub} {what} within {self._seconds:.0f} s: check "
            "spec.model.huggingFace.endpoint and what the cluster lets out.",
            retriable=True,
        )
