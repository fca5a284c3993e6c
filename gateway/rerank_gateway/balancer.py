"""Which replica gets a request. Load is counted in estimated tokens, not requests: one request may hold
one document or two thousand.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rerank_gateway.ejection import Health
from rerank_gateway.records import Address

# More requests than this does no engine work on at a time (vLLM's --max-num-seqs is 128 or more documents):
# they would only be lost with the replica.
MAX_REQUESTS: Final = 128


@dataclass(slots=True, eq=False)
class Replica:
    """A ready pod of a model, and what this gateway knows of its load.

    `tokens_in_flight` and `requests_in_flight` count this gateway's own requests. `plan`: what the replica
    last said it serves (`backend.PLAN_HEADER`).
    """

    address: Address
    tokens_in_flight: int = 0
    requests_in_flight: int = 0
    health: Health = field(default_factory=Health)
    plan: bytes = b""

    def hold(self, tokens: int) -> None:
        """A request of so many tokens is sent to it."""
        self.tokens_in_flight += tokens
        self.requests_in_flight += 1

    def let_go(self, tokens: int) -> None:
        """That request is over."""
        self.tokens_in_flight -= tokens
        self.requests_in_flight -= 1

    def has_room(self, tokens: int, window: int) -> bool:
        """Whether it may be sent `tokens` more. One request always, of any size; many small ones."""
        held = self.tokens_in_flight
        return held == 0 or (held + tokens <= window and self.requests_in_flight < MAX_REQUESTS)


@dataclass(frozen=True, slots=True)
class Preference:
    """The replica whose prefix cache may hold `query` already, while it is not busier than the least busy one
    by more than `slack` tokens.
    """

    query: str
    slack: int


def usable(replicas: Sequence[Replica], now: float) -> Sequence[Replica]:
    """The replicas that are not set aside; all of them where every one is.

    That all fail at once is more likely our own trouble, or that of what they share, than theirs; and who
    asks nobody serves nobody. It needs all of them, not most: windows and queue keep the last ones from
    being overrun.

    Args:
        replicas: the ready replicas of the model.
        now: monotonic clock, seconds.
    """
    for replica in replicas:
        if replica.health.until > now:
            return [replica for replica in replicas if not replica.health.aside(now)] or replicas
    return replicas


def choose(
    candidates: Sequence[Replica], rng: random.Random, preference: Preference | None = None
) -> Replica | None:
    """The less loaded of two replicas at random, ties at random. None: there is none.

    Two at random are nearly as good as the least loaded of all (Mitzenmacher, 2001), and keep gateways that
    do not know of each other's requests from all choosing the same one.
    """
    count = len(candidates)
    if count < 2:
        return candidates[0] if count else None
    if preference is not None:
        least = min(replica.tokens_in_flight for replica in candidates)
        first = max(candidates, key=lambda replica: _weight(replica.address, preference.query))
        if first.tokens_in_flight <= least + preference.slack:
            return first
    one = int(rng.random() * count)
    other = int(rng.random() * (count - 1))
    first, second = candidates[one], candidates[other + (other >= one)]
    return second if second.tokens_in_flight < first.tokens_in_flight else first


def _weight(address: Address, query: str) -> bytes:
    """Rendezvous hashing: when a replica comes or goes, only its own queries move. Equal in all gateways."""
    text = f"{address.host} {address.port} {query}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
