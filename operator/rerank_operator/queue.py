"""A queue of keys: each key at most once waiting and at most once at work, with delays and backoff by key.

The handlers add keys, the workers of `main` take them. A key that is added while it is at work is taken
again afterwards, so no change is ever missed; ten changes before a worker is free cost one look.
The rules are those of client-go's workqueue (k8s.io/client-go/util/workqueue), but for the order. Groups of
keys take turns, so that the thousands of one keep no other waiting. Of a group's keys that wait, the one that
has been due for longest comes next. One that can wait is due later than it came: what comes within that time
goes first, and nothing that comes later.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Container, Hashable
from typing import Final, Generic, TypeVar

from rerank_operator.echoes import Version

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 120.0


class KeyedQueue(Generic[Key]):
    """See the module. Not thread-safe: one event loop.

    `own` are the versions that our own writes made; `can_wait` says for how many seconds a key can, and
    `group` to which one it belongs.
    """

    def __init__(
        self,
        own: Container[Version] = (),
        *,
        can_wait: Callable[[Key], float] = lambda _key: 0.0,
        group: Callable[[Key], Hashable] = lambda _key: None,
    ) -> None:
        self._own = own
        self._can_wait = can_wait
        self._group = group
        # By group a heap: when a key is due, in the order of coming. Only of groups that have one waiting.
        self._waiting: dict[Hashable, list[tuple[float, int, Key]]] = {}
        self._turns: deque[Hashable] = deque()
        self._came = 0
        self._dirty: set[Key] = set()
        self._told: dict[Key, set[Version]] = {}
        self._working: dict[Key, float] = {}  # since when
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait for a worker now; delayed ones do not count."""
        return sum(map(len, self._waiting.values()))

    def add(self, key: Key) -> None:
        """Have the key looked at as soon as a worker is free."""
        self._cancel_timer(key)
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._line_up(key)

    def tell(self, key: Key, version: Version) -> None:
        """An event told of a version of an object: have the key looked at, unless it is of our own making.

        While the key is at work that is not known yet: an event may be faster than the answer to the write.
        """
        if key in self._working:
            self._told.setdefault(key, set()).add(version)
        elif version not in self._own:
            self.add(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Have the key looked at in `seconds`, or earlier if something else asks for it earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if key in self._dirty or (timer is not None and timer.when() <= loop.time() + seconds):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(seconds, self.add, key)

    def retry(
        self, key: Key, *, first: float = FIRST_RETRY_SECONDS, longest: float = LONGEST_RETRY_SECONDS
    ) -> float:
        """Have the key looked at again after a failure; the delay, which it returns, doubles each time."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(longest, first * 2.0 ** min(failures, 16))
        delay *= random.uniform(0.75, 1.0)  # noqa: S311  # spreads retries, guards nothing
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """The key succeeded: its next failure starts with the shortest delay again."""
        self._failures.pop(key, None)

    async def take(self) -> Key:
        """The next key. The caller owes `done` for it."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        key = self._next()
        self._dirty.discard(key)
        self._working[key] = asyncio.get_running_loop().time()
        return key

    def done(self, key: Key) -> None:
        """The work on the key has ended, well or not."""
        self._working.pop(key, None)
        news = any(version not in self._own for version in self._told.pop(key, ()))
        if key in self._dirty:
            self._line_up(key)
        elif news:
            self.add(key)

    def longest_at_work(self) -> tuple[Key | None, float]:
        """The key that a worker has been at for longest, and for how many seconds."""
        key = next(iter(self._working), None)
        if key is None:
            return None, 0.0
        return key, asyncio.get_running_loop().time() - self._working[key]

    def _line_up(self, key: Key) -> None:
        due = asyncio.get_running_loop().time() + self._can_wait(key)
        group = self._group(key)
        if group not in self._waiting:
            self._waiting[group] = []
            self._turns.append(group)
        self._came += 1
        heapq.heappush(self._waiting[group], (due, self._came, key))
        self._arrived.set()

    def _next(self) -> Key:
        group = self._turns.popleft()
        heap = self._waiting[group]
        _, _, key = heapq.heappop(heap)
        if heap:
            self._turns.append(group)
        else:
            del self._waiting[group]
        return key

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
