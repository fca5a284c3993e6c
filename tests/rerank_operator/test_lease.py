"""The Lease: one leader, by its own clock; a leader that slept may not write."""

import asyncio
import copy
from dataclasses import dataclass, field

import pytest

from rerank_operator.api_error import ApiError
from rerank_operator.cluster import Cluster
from rerank_operator.lease import DURATION_SECONDS, RENEW_DEADLINE_SECONDS, LeaderLease
from rerank_operator.resources import Object, Resource


class Clock:
    """A clock that only moves when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Server(Cluster):
    """Keeps one Lease, with the API server's optimistic locking."""

    api: None = None  # type: ignore[assignment]  # nothing is connected
    lease: Object | None = None
    version: int = 0
    down: bool = False
    puts: list[str] = field(default_factory=list)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        self._reachable()
        return copy.deepcopy(self.lease)

    async def create_lease(self, lease: Object) -> Object:
        self._reachable()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "")
        return self._store(lease)

    async def replace_lease(self, lease: Object, *, deadline: float) -> Object:
        self._reachable()
        assert self.lease is not None
        if lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        return self._store(lease)

    def _store(self, lease: Object) -> Object:
        self.version += 1
        self.puts.append(lease["spec"]["holderIdentity"])
        self.lease = copy.deepcopy(lease)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

    def _reachable(self) -> None:
        if self.down:
            raise ApiError(0, "Unreachable", "")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Server:
    return Server()


def candidate(server: Server, clock: Clock, identity: str) -> LeaderLease:
    return LeaderLease(api=server, namespace="n", name="lease", identity=identity, clock=clock)


async def test_the_first_leads_and_the_second_waits(server: Server, clock: Clock) -> None:
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    assert await first._attempt()
    assert not await second._attempt()
    assert (first.held(), second.held()) == (True, False)


async def test_the_second_takes_over_when_the_first_falls_silent(server: Server, clock: Clock) -> None:
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first._attempt()
    assert not await second._attempt()
    clock.now += DURATION_SECONDS - 1
    assert not await second._attempt()
    assert not first.held(), "the first stops writing well before the second may begin"
    clock.now += 1
    assert await second._attempt()
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1
    assert not await first._attempt()
    assert not first.held()


async def test_a_renewal_starts_the_wait_anew(server: Server, clock: Clock) -> None:
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first._attempt()
    await second._attempt()
    clock.now += DURATION_SECONDS - 1
    await first._attempt()
    assert not await second._attempt()
    clock.now += DURATION_SECONDS - 1
    assert not await second._attempt()


async def test_what_counts_is_when_the_request_left(server: Server, clock: Clock) -> None:
    """An answer that took long must not prolong the leadership."""
    first = candidate(server, clock, "first")

    async def slow(resource: Resource, namespace: str | None, name: str) -> Object | None:
        clock.now += 5
        return None

    server.get = slow  # type: ignore[method-assign]
    assert await first._attempt()
    clock.now += RENEW_DEADLINE_SECONDS - 5
    assert not first.held()


async def test_an_unreachable_server_ends_the_leadership(server: Server, clock: Clock) -> None:
    first = candidate(server, clock, "first")
    await first._attempt()
    server.down = True
    assert not await first._attempt()
    clock.now += 3
    assert first.seconds_left() == RENEW_DEADLINE_SECONDS - 3, "one missed renewal is no loss"
    clock.now += RENEW_DEADLINE_SECONDS
    assert not first.held()


async def test_of_two_that_see_a_free_lease_one_gets_it(server: Server, clock: Clock) -> None:
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first._attempt()
    await first.release()
    assert server.lease is not None
    seen = copy.deepcopy(server.lease)
    assert await second._attempt()

    async def stale(resource: Resource, namespace: str | None, name: str) -> Object | None:
        return seen

    server.get = stale  # type: ignore[method-assign]
    third = candidate(server, clock, "third")
    assert not await third._attempt()
    assert server.puts == ["first", "", "second"]


async def test_a_lease_that_was_handed_back_is_free_at_once(server: Server, clock: Clock) -> None:
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first._attempt()
    assert not await second._attempt()
    await first.release()
    assert not first.held()
    assert await second._attempt()


async def test_releasing_takes_nothing_from_a_successor(server: Server, clock: Clock) -> None:
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first._attempt()
    await second._attempt()
    clock.now += DURATION_SECONDS
    await second._attempt()
    await first.release()
    assert server.puts == ["first", "second"]


async def test_a_renewal_that_was_cut_off_is_handed_back_too(server: Server, clock: Clock) -> None:
    """Nobody waited for its answer, and it is carried out before, or amid, the release."""
    first = candidate(server, clock, "first")
    await first._attempt()
    assert server.lease is not None
    server._store(server.lease)
    seen = copy.deepcopy(server.lease)
    reads = iter([seen])
    server._store(server.lease)
    now = server.get

    async def overtaken(resource: Resource, namespace: str | None, name: str) -> Object | None:
        return next(reads, None) or await now(resource, namespace, name)

    server.get = overtaken  # type: ignore[method-assign]
    await first.release()
    assert server.lease["spec"]["holderIdentity"] == ""


async def test_a_lease_that_was_taken_without_an_answer_is_handed_back(server: Server, clock: Clock) -> None:
    first = candidate(server, clock, "first")
    create = server.create_lease

    async def unanswered(lease: Object) -> Object:
        await create(lease)
        raise ApiError(0, "Unreachable", "")

    server.create_lease = unanswered  # type: ignore[method-assign]
    assert not await first._attempt()
    await first.release()
    assert server.puts == ["first", ""]


async def test_a_standby_hands_nothing_back(server: Server, clock: Clock) -> None:
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first._attempt()
    await second._attempt()
    server.down = True
    await second.release()
    assert server.puts == ["first"]


async def test_keep_returns_when_the_lease_is_lost(
    server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_operator.lease.RETRY_SECONDS", 0)
    first = candidate(server, clock, "first")
    await first._attempt()
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(0.01)
    assert not keeping.done()
    server.down = True
    clock.now += RENEW_DEADLINE_SECONDS
    await asyncio.wait_for(keeping, 1)
