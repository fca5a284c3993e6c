"""Where requests wait for the first replica of a model that is about to have one: scaled from zero, or
started a moment ago.
"""

import asyncio
import time
from collections import Counter
from typing import Final

from rerank_gateway import errors
from rerank_gateway.config import Settings
from rerank_gateway.errors import ApiError
from rerank_gateway.in_flight import TIMES_FREE
from rerank_gateway.records import ModelRecord, ObjectId
from rerank_gateway.state import State

_SOON_SECONDS: Final = 5
_LATER_SECONDS: Final = 60


class WaitingRoom:
    """One for the process, with so many places. A key may hold a multiple of those that are free, as of the
    bytes in flight: a model that never starts must not keep other keys' requests out.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        self._seconds = settings.hold_seconds
        self._places = settings.max_held_requests
        self._state = state
        self._held: Counter[ObjectId] = Counter()
        self._waiting: dict[ObjectId, set[asyncio.Future[None]]] = {}

    def held(self, model: ObjectId) -> int:
        """How many requests wait for a model."""
        return len(self._waiting.get(model, ()))

    def look(self, model: ObjectId) -> None:
        """Let those who wait for a model look again."""
        for future in self._waiting.get(model, ()):
            if not future.done():
                future.set_result(None)

    async def until_ready(self, key: ObjectId, model: ModelRecord, deadline: float) -> None:
        """Wait until the model has a ready replica.

        Args:
            key: the APIKey that asks.
            model: the model.
            deadline: of the request, on the monotonic clock.

        Raises:
            ApiError: 503, it has none in time, or none is to be expected; 404, it was deleted.
        """
        until = min(deadline, time.monotonic() + self._seconds)
        self._expect(model)
        if self._held[key] + 1 > TIMES_FREE * (self._places - self._held.total()):
            raise _not_ready(model)
        self._held[key] += 1
        try:
            while not self._state.replicas(model.id):
                self._expect(model)
                if time.monotonic() >= until:
                    raise _not_ready(model)
                await self._wait(model.id, until)
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]

    def _expect(self, model: ModelRecord) -> None:
        now = self._state.model(model.id)
        if now is None:
            raise errors.model_not_found(model.id.name)
        if not now.wanted:
            raise _stopped(now)

    async def _wait(self, model: ObjectId, until: float) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(model, set())
        waiting.add(changed)
        try:
            async with asyncio.timeout_at(until):
                await changed
        except TimeoutError:
            pass
        finally:
            waiting.discard(changed)
            if not waiting and self._waiting.get(model) is waiting:
                del self._waiting[model]


def _not_ready(model: ModelRecord) -> ApiError:
    return errors.unavailable(
        f'No replica of the model "{model.id.name}" is ready.',
        code="model_not_ready",
        retry_after=_SOON_SECONDS,
    )


def _stopped(model: ModelRecord) -> ApiError:
    """Nothing will come of waiting: somebody has to do something first."""
    if model.failed:
        message = (
            f'The model "{model.id.name}" failed to start. '
            f"kubectl describe modeldeployment {model.id.name} says why."
        )
        return errors.unavailable(message, code="model_failed", retry_after=_LATER_SECONDS)
    message = (
        f'The model "{model.id.name}" is stopped: its spec.replicas is 0. '
        f"Start it with: kubectl scale modeldeployment {model.id.name} --replicas=1"
    )
    return errors.unavailable(message, code="model_stopped", retry_after=_LATER_SECONDS)
