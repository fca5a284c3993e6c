"""The parts of requests on their way to the replicas of one model: each goes to a replica whose window has
room or waits for its turn, and gets a second attempt on another replica, never a third.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from rerank_gateway import balancer, errors, rerank_answer, rerank_request, split
from rerank_gateway.backend import BackendAnswer, InvalidAnswerError, UnreachableError
from rerank_gateway.balancer import Replica
from rerank_gateway.config import Settings
from rerank_gateway.errand import Errand
from rerank_gateway.errors import ApiError
from rerank_gateway.estimate import Estimator
from rerank_gateway.fair_queue import Entry, FairQueue
from rerank_gateway.latency import Latency
from rerank_gateway.metrics import Metrics
from rerank_gateway.part_size import Most, PartSize
from rerank_gateway.queue_limits import QueueLimits
from rerank_gateway.records import Address, ObjectId
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.retry_budget import RetryBudget
from rerank_gateway.split import Part
from rerank_gateway.throughput import Throughput
from rerank_gateway.turns import Alone, Together, Turn

# Of parts, for each replica: one is read while the next is on its way. More would only be waited for.
_WINDOW_PARTS: Final = 2
# A replica that takes so many times what it should, and this long, is hung.
_HUNG_TIMES: Final = 5
_HUNG_SECONDS: Final = 10.0
# A query that nobody has answered yet goes to so many replicas at once.
_PILOTS: Final = 2
_SUCCESSOR_SECONDS: Final = 2.0
_SUCCESSOR_POLL_SECONDS: Final = 0.05

_log = structlog.get_logger("rerank_gateway.dispatcher")


class Dispatcher:
    """One model's queue, and the windows of its replicas.

    Args:
        model: whose.
        replicas: its ready replicas now.
        call: sends a body, with names for its head, to one of them until a time; see `Backend.rerank`.
        settings: see there.
        metrics: see there.
    """

    def __init__(
        self,
        model: ObjectId,
        replicas: Callable[[], Sequence[Replica]],
        call: Callable[[Address, bytes, bytes, float], Awaitable[BackendAnswer]],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.estimator = Estimator()
        self.throughput = Throughput()
        self.latency = Latency()
        self.read_tokens = 0
        self.queue: FairQueue[Part, Turn] = FairQueue(settings.part_tokens)
        self._model = model
        self._ended = False
        self._replicas = replicas
        self._call = call
        self._limits = QueueLimits(settings.max_queued_documents, settings.max_queue_seconds)
        self._part_size = PartSize(settings.part_tokens)
        self._timeout = settings.request_timeout_seconds
        self._budget = RetryBudget()
        self._metrics = metrics.of_model(model)
        self._names = {"namespace": model.namespace, "model": model.name}
        self._rng = random.Random()  # noqa: S311 - spreads load

    @property
    def running_tokens(self) -> int:
        return sum(replica.tokens_in_flight for replica in self._replicas())

    # What the scheduler wants

    def most(self, tokens: int) -> Most:
        """What a part of a request of so many tokens may hold."""
        return self._part_size.of(tokens, len(self._replicas()))

    async def ask(self, errand: Errand, part: Part) -> Ranking:
        """Have one part scored.

        Raises:
            ApiError: the refusal to send.
        """
        replica = None if self.queue else self._free(errand, part)
        if replica is None:
            self._admit(errand, (part,))
            replica = await self._turn(errand, part)
        else:
            replica.hold(part.tokens)
        try:
            return await self._attempts(errand, part, replica)
        finally:
            self._release(replica, part)

    async def ask_all(self, errand: Errand, parts: Sequence[Part]) -> list[Ranking]:
        """Have several parts scored: all of them or none, the first failure ends the others.

        Where there are more replicas than a request may break, two parts go ahead of the rest.

        Raises:
            ApiError: the refusal to send.
        """
        self._admit(errand, parts)
        self._metrics.split.inc(len(parts))
        try:
            async with asyncio.timeout_at(errand.deadline):
                if len(self._replicas()) <= _PILOTS:
                    return await self._together(errand, parts, len(parts))
                return await self._together(errand, parts, _PILOTS)
        except TimeoutError:
            raise self._late() from None

    def pump(self) -> None:
        """Give turns while there is room. To be called whenever there may be more of it."""
        queue = self.queue
        while (entry := queue.head()) is not None:
            part, turn = entry.items[0], entry.owner
            replica = self._free(turn.errand, part)
            if replica is None:
                return
            queue.take(entry)
            replica.hold(part.tokens)
            if not turn.granted(part, replica):
                replica.let_go(part.tokens)
        self.throughput.waits(something=False)

    def end(self) -> None:
        """The model is gone: refuse what waits, and what was about to. What replicas are at may end well."""
        self._ended = True
        while (entry := self.queue.head()) is not None:
            self.queue.remove(entry)
            entry.owner.refused(self._gone())

    # Waiting

    def _admit(self, errand: Errand, parts: Sequence[Part]) -> None:
        """Refuse at once what would wait too long: late answers help nobody and cost those behind."""
        seconds = self._limits.refuse(
            self.queue, errand, parts, running=self.running_tokens, rate=self._rate(), now=time.monotonic()
        )
        if seconds is not None:
            self._metrics.refused.inc()
            raise errors.unavailable(
                f'The model "{self._model.name}" has more to do than it can. Ask again later, '
                "or raise its replicas.",
                code="model_overloaded",
                retry_after=seconds,
            )

    async def _turn(self, errand: Errand, part: Part) -> Replica:
        turn = Alone(errand)
        started = time.monotonic()
        entry = self._wait(errand, (part,), turn)
        late = asyncio.get_running_loop().call_at(errand.deadline, lambda: turn.refused(self._late()))
        try:
            replica = await turn.replica
        except BaseException:
            self._leave(entry)
            if turn.replica.done() and not turn.replica.cancelled() and not turn.replica.exception():
                self._release(turn.replica.result(), part)
            raise
        finally:
            late.cancel()
        self._metrics.wait.observe(time.monotonic() - started)
        return replica

    async def _together(self, errand: Errand, parts: Sequence[Part], pilots: int) -> list[Ranking]:
        rankings: dict[int, Ranking] = {}
        answered = asyncio.Event()
        entries: list[Entry[Part, Turn]] = []
        rest = parts[pilots:]

        async def work(part: Part, replica: Replica) -> None:
            try:
                rankings[id(part)] = await self._attempts(errand, part, replica)
            except BaseException:
                turn.over = True  # before the group hears of it: nothing may begin any more
                self._leave(*entries)
                raise
            answered.set()

        def start(part: Part, replica: Replica) -> None:
            task = group.create_task(work(part, replica))
            task.add_done_callback(lambda _: self._release(replica, part))

        async def fail(error: ApiError) -> None:
            raise error

        try:
            async with asyncio.TaskGroup() as group:
                turn = Together(errand, len(parts), start, lambda error: group.create_task(fail(error)))
                try:
                    with self.queue.parked(errand.key, rest):
                        entries.append(self._wait(errand, parts[:pilots], turn))
                        if rest:
                            await answered.wait()
                    if rest and not turn.over:  # else the group is about to hear of it
                        entries.append(self._wait(errand, rest, turn))
                    await turn.all_begun.wait()
                finally:
                    self._leave(*entries)
        except ExceptionGroup as failures:  # the first ended the others: that one is the answer
            raise failures.exceptions[0] from None
        return [rankings[id(part)] for part in parts]

    def _wait(self, errand: Errand, parts: Sequence[Part], turn: Turn) -> Entry[Part, Turn]:
        if self._ended:
            raise self._gone()
        entry = self.queue.push(errand.key, parts, turn)
        self.throughput.waits(something=True)
        self.pump()
        return entry

    def _leave(self, *entries: Entry[Part, Turn]) -> None:
        for entry in entries:
            self.queue.remove(entry)
        self.pump()

    def _free(self, errand: Errand, part: Part) -> Replica | None:
        replicas = balancer.usable(self._replicas(), time.monotonic())
        window = _WINDOW_PARTS * self._part_size.tokens
        free = [replica for replica in replicas if replica.has_room(part.tokens, window)]
        return balancer.choose(free, self._rng, errand.preference)

    def _release(self, replica: Replica, part: Part) -> None:
        replica.let_go(part.tokens)
        if self.queue:
            self.pump()

    def _rate(self) -> float | None:
        """Tokens a second of all replicas that can be asked."""
        of_one = self.throughput.of_one
        if of_one is None:
            return None
        return of_one * max(1, len(balancer.usable(self._replicas(), time.monotonic())))

    # Asking

    async def _attempts(self, errand: Errand, part: Part, replica: Replica) -> Ranking:
        """The first attempt and, where that reached nobody, the second: a third would let one request that
        kills replicas kill them all.
        """
        body = rerank_request.backend_body(part.request, self._model.name)
        started = time.monotonic()
        self._budget.first_attempt()
        try:
            answer = await self._attempt(errand, body, replica)
        except UnreachableError as error:
            other = await self._other(errand, replica, error)
            self._metrics.retries.inc()
            other.hold(part.tokens)
            try:
                answer = await self._attempt(errand, body, other)
            except UnreachableError:
                raise self._not_reached() from None
            finally:
                self._release(other, part)
        ranking = self._read(errand, part, answer)
        self._part_size.answered(part.tokens, time.monotonic() - started)
        return ranking

    async def _attempt(self, errand: Errand, body: bytes, replica: Replica) -> BackendAnswer:
        started = time.monotonic()
        until = self._patience(errand, replica, started)
        errand.asked.add(replica.address)
        try:
            answer = await self._call(replica.address, body, errand.trace.attempt(), until)
        except UnreachableError as error:
            if error.draining:
                replica.health.leave_alone(time.monotonic())
            elif not error.stale:
                errand.broken.add(replica.address)
                self._failed(replica, started)
            _log.info("replica_unreachable", **self._names, reason=str(error))
            raise
        except InvalidAnswerError as error:
            self._failed(replica, started)
            _log.warning("backend_answer_invalid", **self._names, reason=str(error))
            raise errors.backend_failed("The model's answer could not be read.") from None
        except TimeoutError:
            if until >= errand.deadline:
                raise self._late() from None
            errand.broken.add(replica.address)
            self._failed(replica, started)
            _log.warning("replica_hung", **self._names, seconds=round(time.monotonic() - started, 1))
            raise UnreachableError("hung") from None
        if answer.status >= 500 and answer.status != 503:
            self._failed(replica, started)
        else:
            replica.health.answered()
        if answer.plan:
            replica.plan = answer.plan
        return answer

    def _patience(self, errand: Errand, replica: Replica, now: float) -> float:
        """Until when an attempt may take: to the end where nobody else could be asked."""
        if len(self._replicas()) < 2:
            return errand.deadline
        rate = self.throughput.of_one
        if rate is None:
            return (now + errand.deadline) / 2
        expected = replica.tokens_in_flight / rate
        return min(errand.deadline, now + max(_HUNG_SECONDS, _HUNG_TIMES * expected))

    async def _other(self, errand: Errand, failed: Replica, error: UnreachableError) -> Replica:
        """The replica for the second attempt: another one, or the same over a new connection when all that
        failed was a connection that had been idle.

        Raises:
            ApiError: there is none, or there were too many second attempts.
        """
        if error.stale or error.draining:
            other = self._besides(errand, failed)
            if other is None and error.stale:
                other = failed
            if other is None:
                other = await self._successor(errand, failed)
        elif len(errand.broken) >= _PILOTS or not self._budget.take(time.monotonic()):
            raise self._not_reached()
        else:
            other = self._besides(errand, failed)
        if other is None:
            raise self._not_reached()
        return other

    def _besides(self, errand: Errand, failed: Replica) -> Replica | None:
        others = [replica for replica in self._replicas() if replica is not failed]
        if not errand.proven and len(errand.asked) >= _PILOTS:
            others = [replica for replica in others if replica.address in errand.asked]
        return balancer.choose(balancer.usable(others, time.monotonic()), self._rng)

    async def _successor(self, errand: Errand, failed: Replica) -> Replica | None:
        """Wait a moment for the replica that takes over from the only one.

        In a rollout the old pod is told to stop as soon as the new one is ready, which may be before its
        EndpointSlice is here.
        """
        end = min(time.monotonic() + _SUCCESSOR_SECONDS, errand.deadline)
        while time.monotonic() < end:
            await asyncio.sleep(_SUCCESSOR_POLL_SECONDS)
            other = self._besides(errand, failed)
            if other is not None:
                return other
        return None

    def _read(self, errand: Errand, part: Part, answer: BackendAnswer) -> Ranking:
        if answer.status != 200:
            refusal = rerank_answer.refusal(answer.status, answer.body)
            if refusal.status >= 500:
                _log.warning("backend_refused", **self._names, status=answer.status)
            raise split.original(refusal, part)
        try:
            ranking = rerank_answer.parse(answer, part.request)
        except rerank_answer.BadAnswerError as error:
            _log.warning("backend_answer_invalid", **self._names, reason=str(error))
            raise errors.backend_failed("The model's answer was not a ranking.") from None
        errand.proven = True
        self.estimator.learn(part.tokens, ranking.tokens, errand.ratio)
        self.read_tokens += part.tokens
        self.throughput.done(part.tokens, len(self._replicas()), time.monotonic())
        return ranking

    def _failed(self, replica: Replica, started: float) -> None:
        if replica.health.failed(started, time.monotonic()):
            self._metrics.ejections.inc()
            _log.warning(
                "replica_ejected", **self._names, address=f"{replica.address.host}:{replica.address.port}"
            )

    def _late(self) -> ApiError:
        if not self._replicas():
            return self._not_reached()
        return errors.deadline_exceeded(self._timeout)

    def _gone(self) -> ApiError:
        return errors.model_not_found(self._model.name)

    def _not_reached(self) -> ApiError:
        return errors.unavailable(
            f'The model "{self._model.name}" could not be reached.', code="model_unreachable", retry_after=1
        )
