"""Whether events still reach us: signs of life of the watches that kopf keeps. Asked by watchdog and metrics.

A watch can die without an error: something on the way forgot its connection, kopf's task does not go on, or
kopf did not find the kind when it started. But kopf renews each watch at least every WATCH_SECONDS, and the
HTTP client that it is given tells what becomes of that. Nothing is written for it, and no right is needed.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from rerank_operator.kopf_client import Response

# The API server ends a watch after SERVER_SECONDS. One that it did not end has fallen silent. What
# happened meanwhile is heard only then: for so long the operator may be deaf after a fault that ends at once.
SERVER_SECONDS: Final = 20
WATCH_SECONDS: Final = 25
# More than three watches in a row that came to nothing.
DEAD_SECONDS: Final = 90.0


@dataclass(slots=True)
class _Signs:
    """Of one watch: when the API server last said anything about it, and when events could last come."""

    heard: float
    current: float
    answer: aiohttp.ClientResponse | None = None
    answered: float = 0.0

    def judge(self, now: float) -> None:
        """What became of the last answer, once it is over: its head alone promises nothing."""
        answer, self.answer = self.answer, None
        if answer is None:
            return
        content = answer.content
        if isinstance(answer, Response) and answer.unsound:
            self.heard = now  # as a refusal would be
        elif content.at_eof() or isinstance(content.exception(), aiohttp.ClientPayloadError):
            self.heard = self.current = now
        elif "watch" in answer.url.query and content.total_bytes > 0:
            # It told something, nobody knows when, before it fell silent.
            self.heard = self.current = self.answered


class Watches:
    """The watches that there should be. `names` has the path that each asks for, and what people call it."""

    def __init__(self, names: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._names = dict(names)
        self._clock = clock
        self._signs = {path: _Signs(heard=clock(), current=clock()) for path in names}

    def ages(self) -> dict[str, float]:
        """Seconds since events of each could last come. A sound watch stays under WATCH_SECONDS."""
        now = self._clock()
        return {self._names[path]: now - signs.current for path, signs in self._signs.items()}

    def dead(self) -> list[str]:
        """Those of which nothing was heard for DEAD_SECONDS.

        A refusal is something: kopf lives and tries on, and another process would be refused too.
        """
        now = self._clock()
        return [self._names[path] for path, signs in self._signs.items() if now - signs.heard > DEAD_SECONDS]

    def trace(self, server: str) -> aiohttp.TraceConfig:
        """What tells us of the requests of an HTTP client of the API server at this URL."""
        root = urlsplit(server).path.rstrip("/")

        async def started(
            _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestStartParams
        ) -> None:
            signs = self._signs.get(request.url.path.removeprefix(root))
            if signs is not None:
                signs.judge(self._clock())

        async def answered(
            _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestEndParams
        ) -> None:
            signs = self._signs.get(request.url.path.removeprefix(root))
            if signs is None:
                return
            if request.response.status == 200:
                signs.answer, signs.answered = request.response, self._clock()
            else:
                signs.heard = self._clock()

        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(started)
        trace.on_request_end.append(answered)
        return trace
