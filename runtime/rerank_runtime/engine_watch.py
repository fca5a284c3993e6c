"""Is the engine up, and does it answer? Used by serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from rerank_runtime import engine_death
from rerank_runtime.engine_api import EngineApi
from rerank_runtime.engine_process import EngineProcess, reap
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.watchdog import Sample, Watchdog, cpu_seconds

log = logging.getLogger(__name__)

_POLL = 0.25
HEALTH_INTERVAL = 5.0


@dataclass(frozen=True)
class Patience:
    """How long the engine may do nothing, in seconds.

    Args:
        start: Without a line of log or processor time before it listens. Loading from a slow disk uses some.
        health: Without an answer to /health later. A long prompt on a busy CPU is no reason to restart.
        work: With requests in flight and no text finished, before it is asked whether it still answers.
        answer: For two short texts then.
    """

    start: float = 600.0
    health: float = 180.0
    work: float = 60.0
    answer: float = 30.0


class EngineWatch:
    """Watches an engine's process and its /health.

    Args:
        api: The engine.
        process: Its process.
        patience: How long it may do nothing.
    """

    def __init__(self, api: EngineApi, process: EngineProcess, patience: Patience) -> None:
        self._api = api
        self._process = process
        self._patience = patience

    async def until_listening(self) -> None:
        """Wait until the engine answers.

        Raises:
            Failure: `EngineHung` where it does nothing for too long.
        """
        loop, limit = asyncio.get_running_loop(), self._patience.start
        watchdog, looked = Watchdog(self._sample()), loop.time()
        while not await self._api.healthy():
            reap(self._process.pid)
            await asyncio.sleep(_POLL)
            if loop.time() - looked < min(HEALTH_INTERVAL, limit / 4):
                continue
            looked = loop.time()
            idle = watchdog.idle_seconds(self._sample())
            if idle >= limit:
                raise engine_death.hung(self._process.tail, idle)

    async def check_health(self, look_again: Callable[[str], None]) -> None:
        """Look until cancelled, and tell of errors.

        Raises:
            Failure: `EngineHung` where /health stays unanswered.
        """
        loop = asyncio.get_running_loop()
        last, errors, failing = loop.time(), self._process.error_lines, False
        while True:
            await asyncio.sleep(min(HEALTH_INTERVAL, self._patience.health / 4))
            reap(self._process.pid)
            if not await self._api.healthy():
                failing, silent = True, loop.time() - last
                if silent >= self._patience.health:
                    raise Failure(
                        Reason.ENGINE_HUNG,
                        f"The engine has not answered /health for {silent:.0f} seconds. It is started again.",
                        retriable=True,
                    )
                continue
            if failing:
                look_again("the engine did not answer /health for a while")
            elif self._process.error_lines != errors:
                look_again("the engine logged an error")
            last, errors, failing = loop.time(), self._process.error_lines, False

    def _sample(self) -> Sample:
        now = asyncio.get_running_loop().time()
        return Sample(now, self._process.lines, cpu_seconds(self._process.pid))
