"""Never more than the limit and what was not heard of yet: for any traffic, any delays, joins and departures.

The real admission, counters and exchange of several gateways, over a network and a clock of this file's own.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_gateway.admission import Admission
from rerank_gateway.backend import BackendAnswer, UnreachableError
from rerank_gateway.consumption import Consumption
from rerank_gateway.errors import ApiError
from rerank_gateway.limits import Amount, Limits
from rerank_gateway.metrics import Metrics
from rerank_gateway.peers import Peers
from rerank_gateway.records import Address, KeyRecord, ObjectId, Peer
from tests.rerank_gateway.harness import until
from tests.rerank_gateway.virtual_time import VirtualLoop

pytestmark = pytest.mark.slow

EPOCH = 1_800_000_000.0
KEY = KeyRecord(ObjectId("default", "search"), "", 0.0, "k", (), None, float("inf"), disabled=False)
NAME = "default/search"


class Watched(Consumption):
    """Counters that are looked at whenever something is admitted."""

    def __init__(self, replica: str, admitted: "Callable[[Watched], None]") -> None:
        super().__init__(replica)
        self._admitted = admitted

    def take(self, key: str, amount: Amount, now: float) -> int:
        slot = super().take(key, amount, now)
        self._admitted(self)
        return slot

    def own(self, now: float) -> int:
        """Documents that this replica admitted in the last minute."""
        own = self._own.get(NAME)
        if own is None:
            return 0
        own.advance(int(now))
        return own.consumed[1]

    def in_flight_at(self, replica: str) -> int:
        """What this replica has heard of another."""
        present = self._present.get(replica, {}).get(NAME)
        return present.in_flight if present is not None else 0


@dataclass
class Node:
    consumption: Watched
    peers: Peers
    admission: Admission
    task: "asyncio.Task[None]"
    requests: "set[asyncio.Task[bool]]" = field(default_factory=set)
    reachable: bool = True


@dataclass
class Cluster:
    """Gateways by port. `delay` is one way, in seconds."""

    limits: Limits
    delay: float = 0.002
    nodes: dict[int, Node] = field(default_factory=dict)
    gone: list[Watched] = field(default_factory=list)
    admitted: int = 0
    refused: list[ApiError] = field(default_factory=list)

    def join(self) -> Node:
        port = 1 + max(self.nodes, default=0) + len(self.gone)
        consumption = Watched(f"replica-{port}", self._check)
        peers = Peers(self.listed, consumption, self, Metrics(), clock=self.now)
        task = asyncio.create_task(peers.run(lambda: True))
        node = Node(consumption, peers, Admission(consumption, peers, clock=self.now), task)
        self.nodes[port] = node
        return node

    async def ready(self, node: Node) -> Node:
        await until(lambda: not node.peers.unasked())
        return node

    async def kill(self, port: int) -> None:
        node = self.nodes.pop(port)
        self.gone.append(node.consumption)
        tasks = [node.task, *node.requests]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def listed(self) -> tuple[Peer, ...]:
        return tuple(Peer(Address("gateway", port), serving=True) for port in self.nodes)

    async def get(self, address: Address, target: str) -> BackendAnswer:
        await asyncio.sleep(self.delay)
        node = self.nodes.get(address.port)
        if node is None or not node.reachable:
            await asyncio.sleep(60 if node else 0)  # a cut line is silent, a closed port answers
            raise UnreachableError("refused")
        body = node.admission.page(dict(parse_qsl(target.partition("?")[2])))
        await asyncio.sleep(self.delay)
        return BackendAnswer(200, body)

    def forget(self, address: Address) -> None:
        pass

    def request(self, node: Node, documents: int, seconds: float = 0.0) -> "asyncio.Task[bool]":
        """One request, of which the model takes some time. Whether it was admitted."""
        task = asyncio.create_task(self._request(node, documents, seconds))
        node.requests.add(task)
        task.add_done_callback(node.requests.discard)
        return task

    async def _request(self, node: Node, documents: int, seconds: float) -> bool:
        try:
            with await node.admission.enter(KEY, self.limits) as reservation:
                await reservation.spend(documents, documents, "documents")
                self.admitted += 1
                await asyncio.sleep(seconds)
        except ApiError as error:
            self.refused.append(error)
            return False
        return True

    def total(self) -> int:
        """Documents that were really admitted in the last minute."""
        living = [node.consumption for node in self.nodes.values()]
        return sum(replica.own(self.now()) for replica in (*living, *self.gone))

    def _check(self, at: Watched) -> None:
        """The promise: above a limit is only what the others did and this one could not have heard yet."""
        living = [node.consumption for node in self.nodes.values()]
        documents = places = in_flight = 0
        for other in (*living, *self.gone):
            if other is not at:
                heard = at.consumed_by(other.replica, NAME, self.now()).documents
                documents += max(0, other.own(self.now()) - heard)
        for other in living:
            here, _ = other.in_flight(NAME)
            in_flight += here
            if other is not at:
                places += max(0, here - at.in_flight_at(other.replica))
        most = self.limits.per_minute[1]
        assert most is None or self.total() <= most + documents
        most = self.limits.concurrent_requests
        assert most is None or in_flight <= most + places


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario)


async def started(limits: Limits, count: int, delay: float = 0.002) -> Cluster:
    cluster = Cluster(limits, delay)
    for _ in range(count):
        cluster.join()
    for node in cluster.nodes.values():
        await cluster.ready(node)
    await asyncio.sleep(3)
    return cluster


def test_keys_are_asked_for_in_the_order_in_which_they_came() -> None:
    """However many ask, and whatever their names."""

    async def scenario() -> None:
        cluster = await started(Limits((None, None, None), None), 2, 0.002)
        first = next(iter(cluster.nodes.values()))
        late = asyncio.create_task(first.peers.exchange("default/zzz"))
        await asyncio.sleep(0)

        async def early(number: int) -> None:
            while not late.done():
                await first.peers.exchange(f"default/aaa-{number}")

        others = [asyncio.create_task(early(number)) for number in range(200)]
        async with asyncio.timeout(5):
            await late
        await asyncio.wait(others)

    run(scenario())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("burst"), st.integers(0, 9), st.integers(1, 30)),
        st.tuples(st.just("large"), st.integers(0, 9), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.just(0), st.integers(1, 4000)),
        st.tuples(st.just("join"), st.just(0), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("heal"), st.integers(0, 9), st.just(0)),
    ),
    min_size=1,
    max_size=25,
)


async def change(cluster: Cluster, action: str, port: int, number: int) -> None:
    if action == "wait":
        await asyncio.sleep(number / 1000)
    elif action == "join" and len(cluster.nodes) < 6:
        await cluster.ready(cluster.join())
    elif action == "kill" and len(cluster.nodes) > 1:
        await cluster.kill(port)
    elif action in ("cut", "heal"):
        cluster.nodes[port].reachable = action == "heal"


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 60),
    st.one_of(st.none(), st.integers(1, 12)),
    st.sampled_from([0.0, 0.002, 0.02, 0.1]),
    STEPS,
)
def test_no_schedule_admits_more_than_was_promised(
    count: int, limit: int, concurrent: int | None, delay: float, steps: list[tuple[str, int, int]]
) -> None:
    async def scenario() -> None:
        cluster = await started(Limits((None, limit, None), concurrent), count, delay)
        tasks: list[asyncio.Task[bool]] = []
        for action, which, number in steps:
            ports = list(cluster.nodes)
            port = ports[which % len(ports)]
            if action == "burst":
                for n in range(number):
                    node = cluster.nodes[ports[(which + n) % len(ports)]]
                    tasks.append(cluster.request(node, min(limit, 1 + n % 3), n % 5 / 10))
            elif action == "large":
                tasks.append(cluster.request(cluster.nodes[port], -(-limit // number), 0.5))
            else:
                await change(cluster, action, port, number)
        await asyncio.wait([*tasks, asyncio.create_task(asyncio.sleep(1))])
        assert all(task.cancelled() or not task.exception() for task in tasks)
        for error in cluster.refused:
            assert error.status == 429
            assert int(dict(error.headers)[b"retry-after"]) >= 1
        for node in list(cluster.nodes.values()):
            assert node.consumption.in_flight(NAME)[0] == 0
            node.task.cancel()

    run(scenario())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("limit", [1, 2, 10, 100])
def test_a_burst_at_once_is_admitted_up_to_the_limit_exactly(count: int, limit: int) -> None:
    async def scenario() -> None:
        cluster = await started(Limits((limit, None, None)), count)
        nodes = list(cluster.nodes.values())
        requests = [cluster.request(nodes[n % count], 1) for n in range(3 * limit)]
        answers = Counter(await asyncio.gather(*requests))
        assert answers[True] == limit

    run(scenario())


def test_one_gateway_alone_may_spend_everything() -> None:
    """Clients that keep one connection are served by one gateway of several."""

    async def scenario() -> None:
        cluster = await started(Limits((60, None, None)), 3)
        answers = [await cluster.request(cluster.nodes[1], 1) for _ in range(70)]
        assert answers == [True] * 60 + [False] * 10

    run(scenario())


def test_a_large_request_is_admitted_as_long_as_it_fits() -> None:
    async def scenario() -> None:
        cluster = await started(Limits((None, 1000, None)), 3)
        nodes = list(cluster.nodes.values())
        assert await cluster.request(nodes[0], 950)
        assert await cluster.request(nodes[1], 50)
        assert not await cluster.request(nodes[2], 1)

    run(scenario())


def test_who_was_asked_does_not_spend_the_share_that_it_had() -> None:
    async def scenario() -> None:
        cluster = await started(Limits((None, 1000, None)), 3)
        nodes = list(cluster.nodes.values())
        assert await asyncio.gather(*(cluster.request(node, 1) for node in nodes)) == [True] * 3
        assert await cluster.request(nodes[0], 900)
        assert not await cluster.request(nodes[2], 100)
        assert await cluster.request(nodes[2], 97)

    run(scenario())


def test_of_two_large_requests_at_the_same_time_one_is_admitted() -> None:
    async def scenario() -> None:
        cluster = await started(Limits((None, 1000, None)), 3)
        await asyncio.gather(*(cluster.request(node, 600) for node in cluster.nodes.values()))
        assert cluster.total() == 600

    run(scenario())


def test_whoever_sends_at_the_limit_evenly_is_never_refused() -> None:
    async def scenario() -> None:
        cluster = await started(Limits((60, None, None)), 3)
        nodes = list(cluster.nodes.values())
        for number in range(180):
            assert await cluster.request(nodes[number % 3], 1)
            await asyncio.sleep(1)

    run(scenario())


def test_a_client_that_keeps_to_its_concurrency_is_never_refused() -> None:
    """Its last request ended at one gateway a moment before the next comes to another."""

    async def scenario() -> None:
        cluster = await started(Limits(concurrent_requests=1), 3)
        nodes = list(cluster.nodes.values())
        for number in range(60):
            assert await cluster.request(nodes[number % 3], 1, 0.03)

    run(scenario())


@pytest.mark.parametrize("concurrent", [1, 2, 7])
def test_concurrency_is_held_over_all_gateways(concurrent: int) -> None:
    async def scenario() -> None:
        cluster = await started(Limits(concurrent_requests=concurrent), 3)
        nodes = list(cluster.nodes.values())
        answers = await asyncio.gather(*(cluster.request(nodes[n % 3], 1, 5) for n in range(30)))
        assert Counter(answers)[True] == concurrent

    run(scenario())


def test_what_a_killed_gateway_consumed_is_remembered_and_its_place_freed() -> None:
    async def scenario() -> None:
        cluster = await started(Limits((10, None, None), 2), 3)
        held = cluster.request(cluster.nodes[1], 1, 600)
        for _ in range(5):
            assert await cluster.request(cluster.nodes[1], 1)
        await asyncio.sleep(2)
        await cluster.kill(1)
        assert held.cancelled()
        both = [cluster.request(cluster.nodes[2], 1, 1) for _ in range(2)]
        assert await asyncio.gather(*both) == [True, True]
        newcomer = await cluster.ready(cluster.join())
        await cluster.kill(2)
        await cluster.kill(3)
        assert [await cluster.request(newcomer, 1) for _ in range(3)] == [True, True, False]

    run(scenario())


def test_gateways_that_do_not_hear_one_another_keep_the_limit_together() -> None:
    async def scenario() -> None:
        cluster = await started(Limits((90, None, None)), 3)
        for node in cluster.nodes.values():
            node.reachable = False
        await asyncio.sleep(2)
        nodes = list(cluster.nodes.values())
        answers = await asyncio.gather(*(cluster.request(nodes[n % 3], 1) for n in range(300)))
        assert Counter(answers)[True] == 90

    run(scenario())


@pytest.mark.parametrize("times", [2, 10])
def test_under_constant_pressure_the_limit_is_used_and_hardly_exceeded(times: int) -> None:
    async def scenario() -> None:
        limit = 300
        cluster = await started(Limits((None, limit, None)), 3)
        tasks = []
        most = 0
        for _ in range(100 * times):  # two minutes
            tasks += [cluster.request(node, 2, 0.05) for node in cluster.nodes.values()]
            most = max(most, cluster.total())
            await asyncio.sleep(1.2 / times)
        await asyncio.gather(*tasks)
        assert most <= 1.02 * limit
        assert 2 * cluster.admitted >= 2 * 0.97 * limit

    run(scenario())


def test_a_burst_beyond_the_shares_is_admitted_without_delay() -> None:
    """All that waits at a gateway is asked for at once."""

    async def scenario() -> None:
        cluster = await started(Limits((900, None, None)), 3)
        before = cluster.now()
        answers = await asyncio.gather(*(cluster.request(cluster.nodes[1], 1) for _ in range(1000)))
        assert Counter(answers) == {True: 900, False: 100}
        assert cluster.now() - before < 0.1

    run(scenario())


@pytest.mark.parametrize("late", [False, True])
def test_a_request_that_is_given_up_takes_nothing(late: bool) -> None:
    """Before it is admitted, or in the moment between that and its own going on."""

    async def scenario() -> None:
        cluster = await started(Limits((None, 10, None), 1), 2, delay=0.02)
        node = cluster.nodes[1]
        task = cluster.request(node, 10, 60)
        loop = asyncio.get_running_loop()

        def cancel_soon(_: Watched) -> None:
            loop.call_soon(task.cancel)

        if late:
            node.consumption._admitted = cancel_soon
        else:
            loop.call_later(0.03, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()
        assert not cluster.admitted
        assert node.consumption.in_flight(NAME) == (0, 0)
        assert node.consumption.consumed(NAME, cluster.now()) == (0, 0, 0)

    run(scenario())
