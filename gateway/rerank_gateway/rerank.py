"""From the head of a request for a ranking, in any dialect, to its answer. What is cheapest to refuse is
checked first.
"""

import time

from rerank_gateway import errors
from rerank_gateway.admission import Admission, Reservation
from rerank_gateway.auth import Authenticator
from rerank_gateway.config import Settings
from rerank_gateway.dialects import paths
from rerank_gateway.dialects.call import Call, Stamp
from rerank_gateway.exchange import Exchange
from rerank_gateway.head import check_json_body
from rerank_gateway.records import KeyRecord, ModelRecord
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.scheduler import Scheduler
from rerank_gateway.state import State
from rerank_gateway.trace import Trace


class Rerank:
    """The data path. One instance serves every request of the process."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        auth: Authenticator,
        admission: Admission,
        scheduler: Scheduler,
    ) -> None:
        self._settings = settings
        self._state = state
        self._auth = auth
        self._admission = admission
        self._scheduler = scheduler

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request.

        Raises:
            ApiError: the refusal to send.
            ClientGoneError: nobody is left to answer.
        """
        now = time.time()
        key = exchange.key = self._auth.authenticate(exchange.head.credential, now)
        check_json_body(exchange.head, self._settings.max_body_bytes)
        if key.limits is None:
            await self._serve(exchange, key, now, None)
        else:
            with await self._admission.enter(key, key.limits) as reservation:
                await self._serve(exchange, key, now, reservation)

    async def _serve(
        self, exchange: Exchange, key: KeyRecord, now: float, reservation: Reservation | None
    ) -> None:
        notes = exchange.notes
        body = await exchange.read_body(self._settings.max_body_bytes, key.key_id)
        call = paths.parse(exchange.path, body)
        del body  # its texts are in `call`, and the model may take a while
        notes["documents"] = sum(len(request.documents) for request in call.requests)
        model = self._state.resolve(key.id.namespace, call.model)
        if model is None:
            raise errors.model_not_found(call.model)
        if not key.allows(model):
            raise errors.model_forbidden(call.model, entry=model.seen_from(key.id.namespace))
        exchange.model = model
        rankings = await exchange.unless_gone(self._rank(exchange, key, model, call, reservation))
        notes["tokens"] = sum(ranking.tokens for ranking in rankings)
        cut = [ranking.truncated.count for ranking in rankings if ranking.truncated is not None]
        if cut:
            notes["truncated"] = sum(cut)
        stamp = Stamp(model=model.id.name, request_id=exchange.head.request_id, created=int(now))
        if reservation is None:
            await exchange.respond(200, call.answer(rankings, stamp))
        else:
            reservation.settle(notes["tokens"])
            await exchange.respond(200, call.answer(rankings, stamp), headers=reservation.headers())

    async def _rank(
        self,
        exchange: Exchange,
        key: KeyRecord,
        model: ModelRecord,
        call: Call,
        reservation: Reservation | None,
    ) -> list[Ranking]:
        """All that may take a while once the body is read."""
        notes = exchange.notes
        estimates = self._scheduler.estimates(model, call.requests)
        if reservation is not None:
            tokens = sum(sum(estimate.pairs) for estimate in estimates)
            await reservation.spend(notes["documents"], tokens, call.field(0, 0).partition("[")[0])
        trace = Trace(exchange.head.traceparent, exchange.head.tracestate)
        notes["backend_request_id"] = trace.id
        started = time.perf_counter()
        rankings = await self._scheduler.rank(key, model, call, estimates, trace, arrived=exchange.arrived)
        notes["ranking_ms"] = round((time.perf_counter() - started) * 1000, 2)
        return rankings
