"""Who waits in a model's queue, and what happens when the turn comes. Used by the dispatcher."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from rerank_gateway.balancer import Replica
from rerank_gateway.errand import Errand
from rerank_gateway.errors import ApiError
from rerank_gateway.split import Part


class Turn(Protocol):
    """Who waits in the queue."""

    errand: Errand

    def granted(self, part: Part, replica: Replica) -> bool:
        """It is `part`'s turn; the window of `replica` counts it already. False: too late, nobody waits."""

    def refused(self, error: ApiError) -> None:
        """No turn will come."""


class Alone:
    """A request of one part that waits: it sends it itself when its turn comes."""

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.replica: asyncio.Future[Replica] = asyncio.get_running_loop().create_future()

    def granted(self, part: Part, replica: Replica) -> bool:  # noqa: ARG002 - there is one part
        if self.replica.done():
            return False
        self.replica.set_result(replica)
        return True

    def refused(self, error: ApiError) -> None:
        if not self.replica.done():
            self.replica.set_exception(error)


class Together:
    """A request of several parts that wait: a task is begun for each, until it is `over`."""

    def __init__(
        self,
        errand: Errand,
        parts: int,
        start: Callable[[Part, Replica], None],
        fail: Callable[[ApiError], object],
    ) -> None:
        self.errand = errand
        self.over = False
        self.all_begun = asyncio.Event()
        self._left = parts
        self._start = start
        self._fail = fail

    def granted(self, part: Part, replica: Replica) -> bool:
        if self.over:
            return False
        self._start(part, replica)
        self._left -= 1
        if not self._left:
            self.all_begun.set()
        return True

    def refused(self, error: ApiError) -> None:
        if not self.over:
            self.over = True
            self._fail(error)
