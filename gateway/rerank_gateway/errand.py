"""What the parts of one client request have in common on their way to replicas."""

from dataclasses import dataclass, field

from rerank_gateway.balancer import Preference
from rerank_gateway.records import Address, ObjectId
from rerank_gateway.trace import Trace


@dataclass(slots=True, eq=False)
class Errand:
    """One request for one ranking.

    Attributes:
        key: the APIKey that it came with.
        trace: what its attempts are called.
        deadline: on the monotonic clock.
        ratio: what its tokens were estimated with (`Estimate.ratio`).
        preference: the replica that is best asked, if any.
        asked: the replicas that got a part of it.
        broken: those that broke off while they had one. Two are enough to suspect the request.
        proven: a part of it was answered: its query is not what breaks replicas.
    """

    key: ObjectId
    trace: Trace
    deadline: float
    ratio: float = 1.0
    preference: Preference | None = None
    asked: set[Address] = field(default_factory=set)
    broken: set[Address] = field(default_factory=set)
    proven: bool = False
