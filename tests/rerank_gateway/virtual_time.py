"""An event loop whose clock jumps to the next timer instead of waiting for it: minutes of gateways in
milliseconds, every run the same.
"""

import asyncio
import selectors
from typing import Any


class _NoWait(selectors.DefaultSelector):
    """Where nothing is ready, time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits and nothing is due: a deadlock"
            self.now += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _NoWait()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now
