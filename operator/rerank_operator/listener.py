"""Keeps kopf listening, in an event loop and a thread of its own. Started by `main` on the leader.

kopf ends as a whole where one of its watches meets what it does not expect: an event that tells of an error,
half a line, a status that something on the way made up. With itself it ends every task that is younger, and
whoever takes long for that, by SIGKILL. So nothing else lives in its loop, and it is started again.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from rerank_operator.handlers import Backoffs

# After so long the next end is news again.
CALM_SECONDS: Final = 60.0
# A thread that takes longer ends with the process.
STOP_SECONDS: Final = 2.0

Operate = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Runs until the event is set."""

_log = structlog.get_logger()


async def listen(operate: Operate) -> None:
    """Run it for ever, again and again; when this is cancelled, have it end."""
    loop = asyncio.get_running_loop()
    pauses = iter(Backoffs())
    while True:
        started = loop.time()
        error = await _apart(operate)
        if loop.time() - started > CALM_SECONDS:
            pauses = iter(Backoffs())
        seconds = next(pauses)
        _log.error("stopped listening; starting again", error=repr(error), seconds=round(seconds, 1))
        await asyncio.sleep(seconds)


async def _apart(operate: Operate) -> BaseException | None:
    """Run it in a thread with a loop of its own. Returns how it ended."""
    ours, stop = asyncio.get_running_loop(), asyncio.Event()
    ended: asyncio.Future[BaseException | None] = ours.create_future()
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    its = runner.get_loop()

    def run() -> None:
        error: BaseException | None = None
        try:
            with runner:
                runner.run(operate(stop))
        except BaseException as caught:  # noqa: BLE001  # told by the loop that waits
            error = caught
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            ours.call_soon_threadsafe(ended.set_result, error)

    threading.Thread(target=run, name="kopf", daemon=True).start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        with contextlib.suppress(RuntimeError):  # it has just ended
            its.call_soon_threadsafe(stop.set)
        await asyncio.wait([ended], timeout=STOP_SECONDS)
        raise
