"""Does the engine get on with what it was asked? /health does not tell: a stuck worker leaves it at 200."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from rerank_runtime.engine_api import EngineApi
from rerank_runtime.engine_watch import Patience
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import Device
from rerank_runtime.verification.cases import ENGLISH
from rerank_runtime.watchdog import cpu_seconds, idle

_INTERVAL = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mark:
    """What the engine has done up to a moment.

    Args:
        time: Seconds of a clock that only goes forward.
        finished: Documents scored; None where it does not say.
        cpu_seconds: Processor time of all its processes.
    """

    time: float
    finished: int | None
    cpu_seconds: float


def worked(before: Mark, after: Mark, device: Device) -> bool:
    """Whether the engine did something in between, or may have.

    On a processor one step of a large model may take minutes, which it is busy for. On a GPU no step does,
    and a thread that waits for a GPU that hangs is busy, too.
    """
    if before.finished is None or after.finished is None or before.finished != after.finished:
        return True
    return device is Device.CPU and not idle(after.cpu_seconds - before.cpu_seconds, after.time - before.time)


class Stall:
    """Watches for requests that the engine does not get on with.

    Args:
        api: The engine.
        pid: Its first process, which leads its session.
        device: What it runs on.
        patience: How long it may do nothing.
    """

    def __init__(self, api: EngineApi, pid: int, device: Device, patience: Patience) -> None:
        self._api = api
        self._pid = pid
        self._device = device
        self._limit = patience.work
        self._answer = patience.answer

    async def mark(self) -> Mark:
        """What it has done by now."""
        now = asyncio.get_running_loop().time()
        return Mark(now, await self._api.finished(), await asyncio.to_thread(cpu_seconds, self._pid))

    async def begin(self) -> Callable[[], Awaitable[bool]]:
        """Begin to look; the function that comes back says whether the engine has worked since."""
        before = await self.mark()

        async def since() -> bool:
            return worked(before, await self.mark(), self._device)

        return since

    async def run(self) -> None:
        """Look until cancelled.

        Requests come and go, for their callers give up: time without any is not counted, and does not end the
        count either.

        Raises:
            Failure: `EngineHung`.
        """
        stalled, last = 0.0, await self.mark()
        while True:
            await asyncio.sleep(min(_INTERVAL, self._limit / 4))
            state, now = await self._api.state(), await self.mark()
            if worked(last, now, self._device):
                stalled = 0.0
            elif state is not None and state.in_flight:
                stalled += now.time - last.time
            last = now
            if stalled >= self._limit:
                await self._ask(stalled)
                stalled = 0.0

    async def _ask(self, stalled: float) -> None:
        # A request whose sender is slow is in flight, too, and nothing for the engine to do.
        log.warning("requests in flight and nothing done for %.0f seconds: does the engine answer?", stalled)
        try:
            async with asyncio.timeout(self._answer):
                await self._api.ask(ENGLISH[0])
        except TimeoutError:
            raise Failure(
                Reason.ENGINE_HUNG,
                f"The engine says that it is healthy, but with requests in flight it has finished no text "
                f"for {stalled:.0f} seconds, and left two short ones unanswered for {self._answer:.0f} more. "
                "It is started again.",
                retriable=True,
            ) from None
        except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
            log.warning("it answers with an error: %s", error)
