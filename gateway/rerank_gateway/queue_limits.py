"""Whether a request may still wait, or is refused at once with the time after which it is worth asking again.

Pure. What is refused early costs nothing; what expires in the queue has cost its client all of the time, and
what expires at a replica has cost everybody. So at ten times the load as much is served as at once it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rerank_gateway.errand import Errand
from rerank_gateway.fair_queue import FairQueue
from rerank_gateway.split import Part

_UNKNOWN_SECONDS: Final = 5
_MOST_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Of one model's queue: documents that may wait, and seconds that the last of them may."""

    documents: int
    seconds: float

    def refuse(
        self,
        queue: FairQueue[Part, Any],
        errand: Errand,
        parts: Sequence[Part],
        *,
        running: int,
        rate: float | None,
        now: float,
    ) -> int | None:
        """Seconds until it may be asked again, or None: it may wait. Where nothing waits anything may.

        Each key may fill its share of the places, so that one that fills them all does not shut the others
        out; twice the places is the end for everybody.

        Args:
            queue: what waits.
            errand: the request's.
            parts: the request's.
            running: tokens that replicas are at.
            rate: tokens a second of all replicas, where that is known.
            now: monotonic clock, seconds.
        """
        if not queue.documents:
            return None
        again = _UNKNOWN_SECONDS if rate is None else math.ceil((queue.tokens + running) / rate)
        again = min(_MOST_SECONDS, max(1, again))
        documents = sum(part.documents for part in parts)
        own, keys = queue.share(errand.key)
        waiting = queue.documents + documents
        if waiting > self.documents and (
            own + documents > self.documents / keys or waiting > 2 * self.documents
        ):
            return again
        if rate is None:
            return None
        tokens = sum(part.tokens for part in parts)
        largest = max(part.tokens for part in parts)
        wait = (running + queue.ahead(errand.key, tokens, largest)) / rate
        if wait > self.seconds or now + wait + tokens / rate > errand.deadline:
            return again
        return None
