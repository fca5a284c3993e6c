"""How a request becomes rankings: in parts where the model scores each document by itself, and after a while
where its first replica is still to come.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

from rerank_gateway import errors, split
from rerank_gateway.backend import Backend
from rerank_gateway.balancer import Preference
from rerank_gateway.config import Settings
from rerank_gateway.dialects.call import Call, blame
from rerank_gateway.dispatcher import Dispatcher
from rerank_gateway.errand import Errand
from rerank_gateway.errors import ApiError
from rerank_gateway.estimate import Estimate
from rerank_gateway.metrics import Metrics
from rerank_gateway.model_load import ModelLoad
from rerank_gateway.records import KeyRecord, ModelRecord, ObjectId
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.rerank_request import RerankRequest
from rerank_gateway.score_cache import Keys, ScoreCache
from rerank_gateway.split import Part
from rerank_gateway.state import State
from rerank_gateway.tokens import BackendTokens
from rerank_gateway.trace import Trace
from rerank_gateway.waiting_room import WaitingRoom

# Of one client request, where it becomes several.
_AT_ONCE: Final = 8


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
        self._room = WaitingRoom(settings, state)
        self._cache = ScoreCache(settings.score_cache_bytes)
        self._dispatchers: dict[ObjectId, Dispatcher] = {}
        self._last_request: dict[ObjectId, float] = {}
        metrics.watch_loads(self.loads)

    async def rank(
        self,
        key: KeyRecord,
        model: ModelRecord,
        call: Call,
        estimates: Sequence[Estimate],
        trace: Trace,
        *,
        arrived: float,
    ) -> list[Ranking]:
        """A ranking for each request of `call`, in their order, as the `estimates` are.

        `arrived` is when the client's request did, on the monotonic clock. How long it took since is counted,
        unless it waited for a first replica: that is not how fast the model is.

        Raises:
            ApiError: the refusal to send.
        """
        now = time.monotonic()
        latency = self._dispatcher(model).latency
        self._last_request[model.id] = now
        deadline = now + self._settings.request_timeout_seconds
        held = not self._state.replicas(model.id)
        if held:
            await self._room.until_ready(key.id, model, deadline)
        ranks = partial(self._rank, model, call, estimates, lambda: Errand(key.id, trace, deadline))
        count = len(call.requests)
        rankings = [await ranks(0)] if count == 1 else await _all(ranks, count)
        if not held:
            now = time.monotonic()
            latency.took(now - arrived, now)
        return rankings

    def estimates(self, model: ModelRecord, requests: Iterable[RerankRequest]) -> list[Estimate]:
        """About how many tokens the model is going to read for each of them.

        Raises:
            ApiError: 404, the model was deleted.
        """
        estimator = self._dispatcher(model).estimator
        return [estimator.of(request.query, request.documents) for request in requests]

    def changed(self, model: ObjectId) -> None:
        """The model, or its replicas, are not what they were."""
        self._room.look(model)
        dispatcher = self._dispatchers.get(model)
        if dispatcher is None:
            return
        if self._state.model(model) is None:
            del self._dispatchers[model]
            self._last_request.pop(model, None)
            dispatcher.end()
        else:
            dispatcher.pump()

    def loads(self) -> list[ModelLoad]:
        """The load of every model that was asked for since this gateway started."""
        now = time.monotonic()
        return [self._load(model, at, now) for model, at in self._last_request.items()]

    def _load(self, model: ObjectId, last_request: float, now: float) -> ModelLoad:
        dispatcher = self._dispatchers[model]
        queue, throughput = dispatcher.queue, dispatcher.throughput
        return ModelLoad(
            model=model,
            queued_requests=queue.requests,
            queued_documents=queue.documents,
            queued_tokens=queue.tokens,
            running_tokens=dispatcher.running_tokens,
            held_requests=self._room.held(model),
            tokens_per_second=throughput.of_one,
            measured_seconds_ago=None if throughput.measured_at is None else now - throughput.measured_at,
            read_tokens=dispatcher.read_tokens,
            idle_seconds=now - last_request,
            latency=dispatcher.latency.figures(now),
        )

    async def _rank(
        self,
        model: ModelRecord,
        call: Call,
        estimates: Sequence[Estimate],
        errand_for: Callable[[], Errand],
        place: int,
    ) -> Ranking:
        request, errand = call.requests[place], errand_for()
        try:
            return await self._scores(model, errand, request, estimates[place])
        except ApiError as refusal:
            raise blame(call, place, refusal) from None

    async def _scores(
        self, model: ModelRecord, errand: Errand, request: RerankRequest, estimate: Estimate
    ) -> Ranking:
        dispatcher = self._dispatcher(model)
        errand.ratio, costs = estimate
        if model.prefix_caching:
            errand.preference = Preference(request.query, self._settings.part_tokens)
        tokens = sum(costs)
        most = dispatcher.most(tokens)
        if model.listwise or (not model.cache_scores and split.is_whole(request.documents, tokens, most)):
            return await dispatcher.ask(errand, Part(request, tokens, ()))
        wanted = split.places(request.documents)
        keys = self._cache_keys(model, errand, request) if model.cache_scores else None
        known = [] if keys is None else self._known(model, keys, wanted)
        parts = split.parts(request, costs, wanted, most)
        if len(parts) > 1:
            rankings = await dispatcher.ask_all(errand, parts)
        else:
            rankings = [await dispatcher.ask(errand, part) for part in parts]
        answers = list(zip(parts, rankings, strict=True))
        if model.cache_scores:
            self._keep(model, errand, request, answers)
        return split.merge(request, answers, known)

    def _cache_keys(self, model: ModelRecord, errand: Errand, request: RerankRequest) -> Keys | None:
        """Keys of scores that any replica would give again. None: they serve different things, or may."""
        plans = {replica.plan for replica in self._state.replicas(model.id)}
        plan = plans.pop() if len(plans) == 1 else b""
        return Keys(model.id, errand.key.namespace, plan, request) if plan else None

    def _known(
        self, model: ModelRecord, keys: Keys, wanted: dict[str, tuple[int, ...]]
    ) -> list[tuple[tuple[int, ...], float]]:
        """The scores that are known, taken out of what is wanted."""
        known: list[tuple[tuple[int, ...], float]] = []
        for text in list(wanted):
            score = self._cache.get(keys.of(text))
            if score is not None:
                known.append((wanted.pop(text), score))
        metrics = self._metrics.of_model(model.id)
        metrics.cached.inc(len(known))
        metrics.not_cached.inc(len(wanted))
        return known

    def _keep(
        self,
        model: ModelRecord,
        errand: Errand,
        request: RerankRequest,
        answers: Iterable[tuple[Part, Ranking]],
    ) -> None:
        """Keep the scores of texts that were read whole: what was cut must be told again."""
        for part, ranking in answers:
            cut = ranking.truncated
            if not ranking.plan or (cut is not None and cut.query):
                continue
            keys = Keys(model.id, errand.key.namespace, ranking.plan, request)
            shortened = set(cut.documents) if cut is not None else ()
            for index, score in ranking.scores:
                if index not in shortened:
                    self._cache.put(keys.of(part.request.documents[index]), score)

    def _dispatcher(self, model: ModelRecord) -> Dispatcher:
        """The model's. It may have been deleted since the request came.

        Raises:
            ApiError: 404, it was.
        """
        dispatcher = self._dispatchers.get(model.id)
        if dispatcher is None:
            if self._state.model(model.id) is None:
                raise errors.model_not_found(model.id.name)
            dispatcher = self._dispatchers[model.id] = self._new_dispatcher(model.id)
        dispatcher.estimator.longest = model.context_length
        return dispatcher

    def _new_dispatcher(self, identity: ObjectId) -> Dispatcher:
        token = self._tokens.of_namespace(identity.namespace)
        return Dispatcher(
            identity,
            lambda: self._state.replicas(identity),
            lambda address, body, names, until: self._backend.rerank(address, body, token, names, until),
            self._settings,
            self._metrics,
        )


async def _all(ranks: Callable[[int], Awaitable[Ranking]], count: int) -> list[Ranking]:
    """All of them or none: the first failure ends the others."""
    rankings: dict[int, Ranking] = {}
    left = iter(range(count))

    async def work() -> None:
        for place in left:
            rankings[place] = await ranks(place)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, count)):
                group.create_task(work())
    except ExceptionGroup as failures:  # the first ended the others: that one is the answer
        raise failures.exceptions[0] from None
    return [rankings[place] for place in range(count)]
