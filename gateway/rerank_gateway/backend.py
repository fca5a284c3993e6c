"""What the data path wants from the HTTP client that calls replicas. `http_client.py` is that client."""

from dataclasses import dataclass
from typing import Final, Protocol

from rerank_gateway.records import Address

PATH: Final = "/v1/rerank"
# We have the documents: the runtime leaves them out of its answer then, a plain vLLM does not.
OMIT_DOCUMENTS: Final = "X-Rerank-Documents: omit"
DRAINING_HEADER: Final = b"x-rerank-draining"
# What the replica cut of a request's texts: `COUNT;INDEX,INDEX…`, then `;query` where that was cut too.
TRUNCATED_HEADER: Final = b"x-rerank-truncated"
# Tokens of the query by itself, from models that read it once for all documents of a request.
QUERY_TOKENS_HEADER: Final = b"x-rerank-query-tokens"
# A digest of the weights that the replica serves and how: equal digests mean equal scores.
PLAN_HEADER: Final = b"x-rerank-plan"


@dataclass(frozen=True, slots=True)
class BackendAnswer:
    """What a replica answered. The values of the headers named above are empty where it sent none."""

    status: int
    body: bytes
    truncated: bytes = b""
    query_tokens: bytes = b""
    plan: bytes = b""


class UnreachableError(Exception):
    """The connection failed, broke before the whole answer was there, or the replica is about to stop and
    did not look at the request.

    `stale`: it was a pooled connection that died as soon as it was asked, most likely because the replica
    closed it while it was idle; asking the same replica again is sound then.
    `draining`: the replica said so itself.
    """

    def __init__(self, message: str, *, stale: bool = False, draining: bool = False) -> None:
        super().__init__(message)
        self.stale = stale
        self.draining = draining


class InvalidAnswerError(Exception):
    """What came back is not HTTP, or larger than any ranking."""


class Backend(Protocol):
    """The HTTP client of the data path."""

    async def rerank(
        self, address: Address, body: bytes, token: str | None, names: bytes, until: float
    ) -> BackendAnswer:
        """Post `body` to a replica, with `names` (see `Trace.attempt`) in its head.

        Cancelling the call closes its connection, which stops the replica.

        Args:
            address: the replica's.
            body: a request for a ranking.
            token: that it asks for, if any.
            names: lines of the head.
            until: when the answer is to be there, in the event loop's time.

        Raises:
            TimeoutError: it was not.
            UnreachableError: no answer; trying another replica is sound, a ranking changes nothing.
            InvalidAnswerError: no point in trying elsewhere.
        """

    def forget(self, address: Address) -> None:
        """The replica is gone: close its idle connections now, the others when they are done."""

    def close(self) -> None:
        """Close every idle connection."""
