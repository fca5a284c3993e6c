"""Takes keys from the queue and has them looked at. Started by `main` on the leader."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Final

import structlog

from rerank_operator import lease
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.echoes import Version
from rerank_operator.handlers import MODEL, Key
from rerank_operator.health import Metrics
from rerank_operator.queue import KeyedQueue
from rerank_operator.resync import Resync

WORKERS: Final = 8
# A model that waits for slow pods must not keep others waiting: the deadline of one look.
LOOK_DEADLINE_SECONDS: Final = 60.0
CONFLICT_SECONDS: Final = 0.2
# What is wrong with the API server is over for all at once: then nobody should wait for long. With a request
# that was asked just before, and waits for its deadline, it is under half a minute.
AWAY_SECONDS: Final = 10.0

# Where thousands of a namespace wait, keys go before models: a look at a key is short, and all that its user
# waits for. A model loads for minutes after its look, and what controllers do for models slows down all that
# comes after. This is how much later a key may come and still go first.
MODEL_LETS_PASS_SECONDS: Final = 120.0

Reconcile = Callable[[str, str], Awaitable[float | None]]

_log = structlog.get_logger()


def new_queue(own: Container[Version]) -> KeyedQueue[Key]:
    """The queue of what is to be looked at: namespaces take turns, and in each keys go before models."""
    return KeyedQueue(
        own,
        can_wait=lambda key: MODEL_LETS_PASS_SECONDS if key[0] == MODEL else 0.0,
        group=lambda key: key[1],
    )


async def work(
    queue: KeyedQueue[Key], reconcilers: Mapping[str, Reconcile], metrics: Metrics, resync: Resync
) -> None:
    """One worker, for ever."""
    while True:
        key = await queue.take()
        resync.looked.add(key)
        started = time.monotonic()
        try:
            result = await _look(queue, key, reconcilers[key[0]])
        finally:
            queue.done(key)
        metrics.looks.labels(key[0], result).inc()
        metrics.look_seconds.labels(key[0]).observe(time.monotonic() - started)


async def _look(queue: KeyedQueue[Key], key: Key, reconcile: Reconcile) -> str:
    kind, namespace, name = key
    try:
        async with asyncio.timeout(LOOK_DEADLINE_SECONDS):
            again = await reconcile(namespace, name)
    except NotLeaderError:
        # The lease ran out. It is taken back, and then nothing else asks for this, or the process ends.
        queue.add_after(key, lease.RETRY_SECONDS)
        return "not-leader"
    except ApiError as error:
        if error.conflict:  # what was observed is not the newest any more: look again
            queue.retry(key, first=CONFLICT_SECONDS, longest=AWAY_SECONDS)
            return "conflict"
        if error.ending:
            return "ending"
        delay = queue.retry(key, longest=AWAY_SECONDS) if error.away else queue.retry(key)
        _log.warning("retrying", kind=kind, namespace=namespace, name=name, error=str(error), seconds=delay)
        return "error"
    except Exception:  # noqa: BLE001  # one resource that breaks us must not stop the others
        delay = queue.retry(key)
        _log.exception("retrying", kind=kind, namespace=namespace, name=name, seconds=delay)
        return "error"
    queue.forget(key)
    if again is not None:
        queue.add_after(key, again)
    return "ok"
