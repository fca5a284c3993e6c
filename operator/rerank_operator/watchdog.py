"""Notices an operator that runs and does not work. Started by `main` on the leader, asked by /livez."""

import asyncio
from dataclasses import dataclass
from typing import Final

from rerank_operator import workers
from rerank_operator.handlers import Key
from rerank_operator.queue import KeyedQueue
from rerank_operator.watches import Watches

CHECK_SECONDS: Final = 5.0
# A look has a deadline, at which it is cancelled. What goes on after that cannot be.
STUCK_SECONDS: Final = workers.LOOK_DEADLINE_SECONDS + 30.0


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Only what another process would do better counts. That the API server is away does not, and is not
    mistaken for it: who cannot reach it loses the Lease long before a watch counts as dead.
    """

    watches: Watches
    queue: KeyedQueue[Key]

    def fault(self) -> str:
        """What is wrong, "" while all is well."""
        dead = self.watches.dead()
        if dead:
            return f"no sign of life of the watch of {', '.join(dead)}"
        key, seconds = self.queue.longest_at_work()
        if key is not None and seconds > STUCK_SECONDS:
            return f"a worker is stuck on {' '.join(key)}"
        return ""

    async def until_fault(self) -> str:
        """Return what is wrong, as soon as something is."""
        while True:
            if fault := self.fault():
                return fault
            await asyncio.sleep(CHECK_SECONDS)
