"""Which replica gets a request. Load is counted in estimated tokens, not requests: one request may hold
one document or two thousand.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rerank_gateway.records import Address

# How long a replica that refused a connection or said that it is draining is left alone while others are
# there. Longer than the API server takes to tell us that it is gone, shorter than anybody would notice.
SET_ASIDE_SECONDS: Final = 2.0


@dataclass(slots=True, eq=False)
class Replica:
    """A ready pod of a model, and what this gateway knows of its load.

    `tokens_in_flight` counts this gateway's own requests; `set_aside_until` is on the monotonic clock.
    """

    address: Address
    tokens_in_flight: int = 0
    set_aside_until: float = 0.0


def choose(
    replicas: Sequence[Replica], now: float, *, besides: Replica | None = None, rng: random.Random
) -> Replica | None:
    """The least loaded replica, ties at random, those set aside only when no other is left.

    Args:
        replicas: the ready replicas of the model.
        now: monotonic clock, seconds.
        besides: a replica that has already failed this request.
        rng: breaks ties, so that gateways that start together do not march in step.

    Returns:
        None when there is no replica to ask.
    """
    candidates = [replica for replica in replicas if replica is not besides]
    if len(candidates) > 1:
        candidates = [replica for replica in candidates if replica.set_aside_until <= now] or candidates
        least = min(replica.tokens_in_flight for replica in candidates)
        candidates = [replica for replica in candidates if replica.tokens_in_flight == least]
    if len(candidates) > 1:
        return rng.choice(candidates)
    return candidates[0] if candidates else None
