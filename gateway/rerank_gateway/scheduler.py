"""How a request becomes rankings: which replica is asked, and what happens when that fails."""

import asyncio
import random
import time
from typing import Final

import structlog

from rerank_gateway import balancer, errors, rerank_answer, rerank_request
from rerank_gateway.backend import Backend, BackendAnswer, InvalidAnswerError, UnreachableError
from rerank_gateway.balancer import SET_ASIDE_SECONDS, Replica
from rerank_gateway.config import Settings
from rerank_gateway.dialects.call import Call, blame
from rerank_gateway.errors import ApiError
from rerank_gateway.metrics import Metrics
from rerank_gateway.records import KeyRecord, ModelRecord
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.state import State
from rerank_gateway.tokens import BackendTokens
from rerank_gateway.trace import Trace

_NO_REPLICA_RETRY_SECONDS: Final = 5
# Of one client request, where it becomes several.
_AT_ONCE: Final = 8
_SUCCESSOR_SECONDS: Final = 2.0
_SUCCESSOR_POLL_SECONDS: Final = 0.05

_log = structlog.get_logger("rerank_gateway.scheduler")


class Scheduler:
    """Ranks for every request of the process."""

    def __init__(
        self, settings: Settings, state: State, backend: Backend, tokens: BackendTokens, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._state = state
        self._backend = backend
        self._tokens = tokens
        self._metrics = metrics
        self._rng = random.Random()  # noqa: S311 - breaks ties between replicas

    async def rank(self, key: KeyRecord, model: ModelRecord, call: Call, trace: Trace) -> list[Ranking]:  # noqa: ARG002 - keys share in turn when there is a queue
        """A ranking for each request of `call`, in their order.

        Raises:
            ApiError: the refusal to send.
        """
        seconds = self._settings.request_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                if len(call.requests) == 1:
                    return [await self._rank(model, call, 0, trace)]
                return await self._rank_all(model, call, trace)
        except TimeoutError:
            raise errors.deadline_exceeded(seconds) from None

    async def _rank_all(self, model: ModelRecord, call: Call, trace: Trace) -> list[Ranking]:
        """All of them or none: the first failure ends the others."""
        rankings: dict[int, Ranking] = {}
        left = iter(range(len(call.requests)))

        async def work() -> None:
            for place in left:
                rankings[place] = await self._rank(model, call, place, trace)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_AT_ONCE, len(call.requests))):
                    group.create_task(work())
        except ExceptionGroup as failures:  # the first ended the others: that one is the answer
            raise failures.exceptions[0] from None
        return [rankings[place] for place in range(len(call.requests))]

    async def _rank(self, model: ModelRecord, call: Call, place: int, trace: Trace) -> Ranking:
        request = call.requests[place]
        body = rerank_request.backend_body(request, model)
        replica = self._choose(model)
        if replica is None:
            raise errors.unavailable(
                f'No replica of the model "{model.id.name}" is ready.',
                code="model_not_ready",
                retry_after=_NO_REPLICA_RETRY_SECONDS,
            )
        try:
            answer = await self._ask(model, replica, body, request.estimated_tokens, trace)
        except UnreachableError as first:
            answer = await self._retry(model, replica, first, body, request.estimated_tokens, trace=trace)
        if answer.status != 200:
            refusal = rerank_answer.refusal(answer.status, answer.body)
            if refusal.status >= 500:
                _log.warning("backend_refused", **_names(model), status=answer.status)
            raise blame(call, place, refusal)
        try:
            return rerank_answer.parse(answer, request)
        except rerank_answer.BadAnswerError as error:
            _log.warning("backend_answer_invalid", **_names(model), reason=str(error))
            raise errors.backend_failed("The model's answer was not a ranking.") from None

    async def _retry(
        self,
        model: ModelRecord,
        failed: Replica,
        error: UnreachableError,
        body: bytes,
        tokens: int,
        *,
        trace: Trace,
    ) -> BackendAnswer:
        """The second and last attempt: a third would let one request that kills replicas kill them all.

        It goes to another replica, or to the same one over a new connection when all that failed was a
        connection that had been idle.
        """
        other = self._choose(model, besides=failed)
        if other is None and error.stale:
            other = failed
        if other is None and error.draining:
            other = await self._successor(model, failed)
        if other is None:
            raise _not_reached(model)
        self._metrics.retries.labels(*model.id).inc()
        try:
            return await self._ask(model, other, body, tokens, trace)
        except UnreachableError:
            raise _not_reached(model) from None

    async def _successor(self, model: ModelRecord, failed: Replica) -> Replica | None:
        """Wait a moment for the replica that takes over from the only one.

        In a rollout the old pod is told to stop as soon as the new one is ready, which may be before its
        EndpointSlice is here.
        """
        end = time.monotonic() + _SUCCESSOR_SECONDS
        while time.monotonic() < end:
            await asyncio.sleep(_SUCCESSOR_POLL_SECONDS)
            other = self._choose(model, besides=failed)
            if other is not None:
                return other
        return None

    async def _ask(
        self, model: ModelRecord, replica: Replica, body: bytes, tokens: int, trace: Trace
    ) -> BackendAnswer:
        replica.tokens_in_flight += tokens
        try:
            return await self._backend.rerank(
                replica.address, body, self._tokens.of_namespace(model.id.namespace), trace.attempt()
            )
        except UnreachableError as error:
            if not error.stale:
                replica.set_aside_until = time.monotonic() + SET_ASIDE_SECONDS
            _log.info("replica_unreachable", **_names(model), reason=str(error))
            raise
        except InvalidAnswerError as error:
            _log.warning("backend_answer_invalid", **_names(model), reason=str(error))
            raise errors.backend_failed("The model's answer could not be read.") from None
        finally:
            replica.tokens_in_flight -= tokens

    def _choose(self, model: ModelRecord, *, besides: Replica | None = None) -> Replica | None:
        return balancer.choose(
            self._state.replicas(model.id), time.monotonic(), besides=besides, rng=self._rng
        )


def _not_reached(model: ModelRecord) -> ApiError:
    return errors.unavailable(
        f'The model "{model.id.name}" could not be reached.', code="model_unreachable", retry_after=1
    )


def _names(model: ModelRecord) -> dict[str, str]:
    return {"namespace": model.id.namespace, "model": model.id.name}
