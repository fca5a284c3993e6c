"""How requests share a model's replicas, over real sockets, down to replicas that die."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rerank_api import backend_token, keys
from rerank_gateway import ejection, part_size
from rerank_gateway.config import Settings
from rerank_gateway.model_load import ModelLoad
from rerank_gateway.records import ObjectId
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MASTER, MINTED, Running, running, slice_of, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

TOKEN = backend_token.token(MASTER, "default")
# A part is 32 documents of these with the usual query, and so is an engine's step.
WORDS = "word " * 12
DOCUMENT_TOKENS = 12 + 1 + 5 + 3
PART_TOKENS = 32 * DOCUMENT_TOKENS


@pytest.fixture(autouse=True)
def _parts_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are short here, or as short as a test lets them be; they stand for long ones."""
    monkeypatch.setattr(part_size, "_SECONDS", 0.0)


def documents(count: int) -> list[str]:
    return [f"{WORDS} {number}" for number in range(count)]


@contextlib.asynccontextmanager
async def served(
    count: int, *, model: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[Running, list[FakeEngine]]]:
    """A gateway of its own with so many replicas."""
    fields: dict[str, Any] = {"part_tokens": PART_TOKENS, "drain_seconds": 0, **settings}
    async with contextlib.AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(FakeEngine(token=TOKEN)) for _ in range(count)]
        gateway = await stack.enter_async_context(running(Settings(**fields)))
        gateway.source.put(objects.model(**(model or {})), *slice_of(engines))
        yield gateway, engines


def seen(engines: list[FakeEngine]) -> list[str]:
    """Every document that a replica was sent."""
    return list(itertools.chain(*(one.body["documents"] for engine in engines for one in engine.seen)))


def load(gateway: Running) -> ModelLoad:
    loads = gateway.gateway.scheduler.loads()
    return loads[0] if loads else ModelLoad(ObjectId("", ""), 0, 0, 0, 0, 0, None, None, 0, 0, None)


async def taught(gateway: Running) -> None:
    """The gateway has seen how long texts are, and how fast the replicas."""
    for _ in range(3):
        assert (await gateway.rerank(documents=documents(800))).status == 200


# Splitting


async def test_a_large_request_is_shared_by_all_replicas_and_answered_as_by_one() -> None:
    texts = documents(300)
    async with served(3) as (gateway, engines), FakeEngine() as whole:
        answer = await gateway.rerank(documents=texts, query="word 77 7", top_n=20)
        gateway.source.put(objects.model("jina", listwise=True), *slice_of([whole], of="jina"))
        whole.served_name = "jina"
        unsplit = await gateway.rerank(documents=texts, query="word 77 7", top_n=20, model="jina")
        assert (answer.status, unsplit.status) == (200, 200)
        assert answer.body["results"] == unsplit.body["results"]
        assert answer.body["usage"] == unsplit.body["usage"]
        assert len(whole.seen) == 1  # documents that are read together are not parted
        assert sorted(seen(engines)) == sorted(texts)
        assert all(engine.seen for engine in engines)
        assert await gateway.metric("split_parts_total") == sum(len(engine.seen) for engine in engines)


async def test_texts_that_are_there_twice_are_scored_once(gateway: Running, engine: FakeEngine) -> None:
    answer = await gateway.rerank(documents=["panda", "x", "panda", "y", "x"], query="panda")
    assert [result["index"] for result in answer.body["results"]] == [0, 2, 1, 3, 4]
    assert engine.seen[0].body["documents"] == ["panda", "x", "y"]
    # The documents of a listwise model change each other's scores.
    gateway.source.put(objects.model(listwise=True))
    await gateway.rerank(documents=["panda", "panda"], query="panda")
    assert engine.seen[1].body["documents"] == ["panda", "panda"]


async def test_the_query_of_an_embedding_model_is_counted_once() -> None:
    async with served(2) as (gateway, engines):
        for engine in engines:
            engine.query_once = True
        answer = await gateway.rerank(documents=documents(100), query="one two three")
        assert answer.body["usage"]["prompt_tokens"] == 100 * 13 + 3
        assert sum(len(engine.seen) for engine in engines) > 1


async def test_what_was_cut_is_told_by_the_clients_own_numbers() -> None:
    async with served(2) as (gateway, _):
        texts = documents(100)
        texts[40] = texts[70] = "word " * 600
        answer = await gateway.rerank(documents=texts)
        assert answer.body["meta"]["truncated"] == {"documents": [40, 70], "count": 2}


async def test_a_part_that_is_refused_ends_the_request() -> None:
    async with served(1) as (gateway, [engine]):
        engine.reject = True
        engine.step_tokens = PART_TOKENS
        texts = documents(1000)
        texts[70] = "word " * 600
        answer = await gateway.rerank(documents=texts)
        assert (answer.status, answer.param) == (400, "documents[70]")
        assert "documents[70] has 600 tokens" in answer.body["message"]
        assert len(seen([engine])) < 300
        assert load(gateway).queued_documents == load(gateway).running_tokens == 0


# Queueing


async def test_one_document_waits_for_two_steps_at_most_behind_a_large_request() -> None:
    async with served(1) as (gateway, [engine]):
        engine.step_tokens = PART_TOKENS
        await taught(gateway)
        engine.steps, engine.pace = 0, asyncio.Semaphore(0)
        large = asyncio.create_task(gateway.rerank(documents=documents(2500)))
        for number in range(5):
            await until(lambda: load(gateway).running_tokens > 1.8 * PART_TOKENS)
            text = f"{WORDS} small {number}"
            small = asyncio.create_task(gateway.rerank(documents=[text]))
            # It waits, or there is room for it still.
            await until(lambda: load(gateway).queued_requests == 2 or text in seen([engine]))  # noqa: B023
            steps = 0
            while text not in engine.read:
                count = len(engine.seen)
                engine.pace.release()
                steps += 1
                await until(lambda: text in engine.read or len(engine.seen) > count)  # noqa: B023
            # One that was under way, one that was sent already, and its own.
            assert steps <= 3
            assert (await small).status == 200
        for _ in range(1000):
            engine.pace.release()
        assert (await large).status == 200
        assert engine.steps < 2500 / 32 * 1.2  # that costs the large one little


async def test_a_key_does_not_wait_for_all_that_another_one_asks() -> None:
    other = keys.mint()
    async with served(1) as (gateway, [engine]):
        gateway.source.put(objects.api_key(other, name="other"))
        engine.step_tokens = PART_TOKENS
        await taught(gateway)
        engine.steps, engine.step_seconds = 0, 0.01
        large = [asyncio.create_task(gateway.rerank(documents=documents(1000))) for _ in range(4)]
        await until(lambda: engine.steps >= 3)
        before = engine.steps
        assert (await gateway.rerank(documents=documents(320), key=other.text)).status == 200
        assert engine.steps - before <= 2 * 10 + 4  # half of the steps are its own
        for task in large:
            task.cancel()


async def test_a_client_that_leaves_takes_all_parts_with_it() -> None:
    async with served(2) as (gateway, engines):
        for engine in engines:
            engine.always = "hold"
        request = asyncio.create_task(gateway.rerank(documents=documents(1000)))
        await until(lambda: all(len(engine.seen) == 2 for engine in engines))
        assert load(gateway).queued_requests == 1
        assert 0 < load(gateway).queued_documents < 1000
        request.cancel()
        await until(lambda: sum(engine.abandoned for engine in engines) == 4)
        found = load(gateway)
        assert (found.queued_requests, found.queued_tokens, found.running_tokens) == (0, 0, 0)
        assert sum(len(engine.seen) for engine in engines) == 4


async def test_the_deadline_ends_what_waits_and_what_runs() -> None:
    async with served(1, request_timeout_seconds=1.5) as (gateway, [engine]):
        engine.always = "hold"
        answer = await gateway.rerank(documents=documents(300))
        assert (answer.status, answer.body["error"]["code"]) == (504, "deadline_exceeded")
        await until(lambda: engine.abandoned == len(engine.seen) == 2)
        assert load(gateway).queued_requests == load(gateway).running_tokens == 0


async def test_more_than_may_wait_is_refused_at_once() -> None:
    async with served(1, max_queued_documents=100) as (gateway, [engine]):
        engine.always = "hold"
        first = asyncio.create_task(gateway.rerank(documents=documents(150)))
        await until(lambda: load(gateway).queued_documents > 0)
        answer = await gateway.rerank(documents=documents(50))
        assert (answer.status, answer.body["error"]["code"]) == (503, "model_overloaded")
        assert int(answer.headers["Retry-After"]) > 0
        assert await gateway.metric("queue_refusals_total") == 1
        engine.release.set()
        engine.always = "answer"
        assert (await first).status == 200


async def test_ten_times_what_a_replica_can_is_refused_early_and_nothing_is_scored_in_vain() -> None:
    async with served(1, max_queue_seconds=0.5) as (gateway, [engine]):
        engine.step_tokens = PART_TOKENS
        engine.step_seconds = 0.01
        await taught(gateway)
        engine.done = 0
        statuses: Counter[int] = Counter()
        useful = 0

        async def client(number: int) -> None:
            nonlocal useful
            for again in range(6):
                texts = [f"{text}x{number}x{again}" for text in documents(64)]
                answer = await gateway.rerank(documents=texts)
                statuses[answer.status] += 1
                if answer.status == 200:
                    useful += 64 * DOCUMENT_TOKENS
                else:
                    assert answer.status == 503
                    assert answer.headers["Retry-After"]
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(client(number) for number in range(80)))
        assert set(statuses) == {200, 503}
        assert useful >= 0.9 * engine.done


# Replicas that fail


async def test_a_replica_that_hangs_is_given_up_for_another() -> None:
    async with served(2, request_timeout_seconds=2.0) as (gateway, engines):
        engines[0].always = "hold"
        answers = await asyncio.gather(*(gateway.rerank(query=f"panda {n}") for n in range(8)))
        assert {answer.status for answer in answers} == {200}
        assert engines[0].abandoned == len(engines[0].seen) > 0


async def test_a_replica_that_fails_again_and_again_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(2) as (gateway, engines):
        engines[0].always = "fail"
        monkeypatch.setattr(ejection, "SET_ASIDE_SECONDS", 0.0)
        statuses = Counter([(await gateway.rerank()).status for _ in range(40)])
        assert statuses == {502: 3, 200: 37}
        assert await gateway.metric("ejections_total") == 1


async def test_replicas_that_all_fail_are_asked_all_the_same() -> None:
    async with served(2) as (gateway, engines):
        for engine in engines:
            engine.always = "fail"
        assert {(await gateway.rerank()).status for _ in range(10)} == {502}
        assert sum(len(engine.seen) for engine in engines) == 10
        for engine in engines:
            engine.always = "answer"
        assert (await gateway.rerank()).status == 200


@pytest.mark.parametrize("where", ["document", "query"])
async def test_a_request_that_kills_replicas_kills_two_at_most(where: str) -> None:
    async with served(5) as (gateway, engines):
        for engine in engines:
            engine.poison = "POISON"
        texts, query = documents(500), "word"
        if where == "document":
            texts[250] = "POISON"
        else:
            query = "POISON"
        answer = await gateway.rerank(documents=texts, query=query)
        assert (answer.status, answer.body["error"]["code"]) == (503, "model_unreachable")
        alive = [engine for engine in engines if engine.alive]
        assert len(alive) == 3
        assert (await gateway.rerank(documents=documents(100))).status == 200


async def test_replicas_killed_again_and_again_cost_no_request() -> None:
    """Requests of one part and of many; one of three replicas is always dying."""
    async with served(3) as (gateway, engines), contextlib.AsyncExitStack() as stack:
        statuses: Counter[int] = Counter()
        stop = asyncio.Event()

        async def client(number: int, size: int) -> None:
            for again in itertools.count():
                if stop.is_set():
                    return
                mark = f"{number}x{again}x"
                texts = [f"{text} {mark}" for text in documents(size)]
                statuses[(await gateway.rerank(documents=texts, query=mark)).status] += 1

        everyone = list(engines)
        clients = [
            asyncio.create_task(client(number, size)) for number, size in enumerate([1, 1, 3, 100, 200])
        ]
        for _ in range(8):
            old = engines.pop(0)
            new = await stack.enter_async_context(FakeEngine(token=TOKEN))
            engines.append(new)
            everyone.append(new)
            before = statuses.total()
            old.behave.append("die")
            await until(lambda: not old.alive, seconds=20)  # noqa: B023 - awaited here
            await asyncio.sleep(0.05)  # nobody tells of it at once
            gateway.source.remove(slice_of([old])[0])
            gateway.source.put(*slice_of([new]))
            await until(lambda: statuses.total() > before + 5, seconds=20)  # noqa: B023 - awaited here
        stop.set()
        await asyncio.gather(*clients)
        asked = seen(everyone)
        assert set(statuses) == {200}
        assert max(Counter(asked).values()) <= 2
        assert await gateway.metric("backend_retries_total") > 0


# Models without a replica


async def test_a_request_waits_for_the_first_replica(engine: FakeEngine) -> None:
    async with served(0) as (gateway, _):
        requests = [asyncio.create_task(gateway.rerank()) for _ in range(3)]
        await until(lambda: load(gateway).held_requests == 3)
        gateway.source.put(*slice_of([engine]))
        assert [(await request).status for request in requests] == [200] * 3
        assert load(gateway).held_requests == 0
        assert load(gateway).latency is None  # so long the model took to start, and not to answer
        await gateway.rerank()
        latency = load(gateway).latency
        assert latency is not None
        assert latency.requests == 1


async def test_the_wait_for_a_first_replica_is_bounded() -> None:
    async with served(0, hold_seconds=0.05, max_held_requests=2) as (gateway, _):
        answers = await asyncio.gather(*(gateway.rerank() for _ in range(4)))
        for answer in answers:
            assert (answer.status, answer.body["error"]["code"]) == (503, "model_not_ready")
            assert answer.headers["Retry-After"] == "5"


async def test_a_model_that_never_starts_does_not_take_every_place(engine: FakeEngine) -> None:
    other = keys.mint()
    async with served(0, max_held_requests=10) as (gateway, _):
        gateway.source.put(objects.api_key(other, name="other"))
        greedy = [asyncio.create_task(gateway.rerank()) for _ in range(12)]
        await until(lambda: sum(task.done() for task in greedy) == 12 - 8)
        modest = asyncio.create_task(gateway.rerank(key=other.text))
        await until(lambda: load(gateway).held_requests == 9)
        gateway.source.put(*slice_of([engine]))
        assert (await modest).status == 200
        assert sorted([(await task).status for task in greedy]) == [200] * 8 + [503] * 4


@pytest.mark.parametrize(
    ("fields", "code", "way_out"),
    [
        ({"replicas": 0}, "model_stopped", "kubectl scale modeldeployment minilm --replicas=1"),
        ({"phase": "Failed"}, "model_failed", "kubectl describe modeldeployment minilm"),
    ],
)
async def test_nothing_is_waited_for_in_vain(fields: dict[str, Any], code: str, way_out: str) -> None:
    async with served(0) as (gateway, _):
        waiting = asyncio.create_task(gateway.rerank())
        await until(lambda: bool(gateway.gateway.scheduler.loads()))
        gateway.source.put(objects.model(**fields))
        for answer in (await waiting, await gateway.rerank()):
            assert (answer.status, answer.body["error"]["code"]) == (503, code)
            assert way_out in answer.body["message"]
            assert answer.headers["Retry-After"] == "60"
        # Scaled to nothing by who will start it again when it is asked for.
        gateway.source.put(objects.model(replicas=0, autoscaling={"minReplicas": 0, "maxReplicas": 2}))
        waiting = asyncio.create_task(gateway.rerank())
        await until(lambda: load(gateway).held_requests == 1)
        waiting.cancel()
        await until(lambda: load(gateway).held_requests == 0)


@pytest.mark.parametrize("replicas", [0, 1, 3])
async def test_what_waits_for_a_model_ends_with_it(replicas: int) -> None:
    async with served(replicas) as (gateway, engines):
        for engine in engines:
            engine.behave.extend(["hold"] * 10)
        small = [asyncio.create_task(gateway.rerank()) for _ in range(3)]
        large = asyncio.create_task(gateway.rerank(documents=documents(600)))
        await until(lambda: len(gateway.gateway.scheduler.loads()) == 1 and load(gateway).idle_seconds >= 0)
        await until(lambda: load(gateway).held_requests + load(gateway).queued_documents > 0)
        dispatcher = next(iter(gateway.gateway.scheduler._dispatchers.values()))
        gateway.source.remove(objects.model())
        assert gateway.gateway.scheduler.loads() == []
        for engine in engines:
            engine.release.set()
        answer = await large
        assert (answer.status, answer.body["error"]["code"]) == (404, "model_not_found")
        assert {(await request).status for request in small} <= {200, 404}
        assert (dispatcher.queue.documents, dispatcher.running_tokens) == (0, 0)
        assert gateway.gateway.scheduler.loads() == []


# What is told


async def test_the_load_of_a_model() -> None:
    async with served(1) as (gateway, [engine]):
        assert gateway.gateway.scheduler.loads() == []
        engine.step_tokens = PART_TOKENS
        engine.step_seconds = 0.02
        request = asyncio.create_task(gateway.rerank(documents=documents(2000)))
        await until(lambda: engine.steps > 20)
        found = load(gateway)
        assert found.model == ("default", "minilm")
        assert found.queued_requests == 1
        assert 0 < found.queued_documents < 2000
        assert 10 * found.queued_documents < found.queued_tokens < 60 * found.queued_documents
        assert 0 < found.running_tokens <= 2 * PART_TOKENS
        assert found.tokens_per_second is not None
        assert found.measured_seconds_ago is not None
        assert found.measured_seconds_ago < 5
        assert found.idle_seconds < 30
        assert (await request).status == 200
        assert load(gateway).read_tokens > found.read_tokens > 0
        gateway.source.remove(objects.model())
        assert gateway.gateway.scheduler.loads() == []


async def test_a_model_with_a_prefix_cache_gets_a_query_where_it_got_it_before() -> None:
    async with served(3, model={"prefix_caching": True}) as (gateway, engines):
        for query in ("panda", "bear", "what is this"):
            for number in range(6):
                await gateway.rerank(query=query, documents=[f"{query} {number}"])
        for engine in engines:
            queries = Counter(one.body["query"] for one in engine.seen)
            assert set(queries.values()) <= {6}


async def test_who_has_no_key_is_not_scheduled() -> None:
    async with served(1) as (gateway, [engine]):
        assert (await gateway.rerank(key=keys.mint().text)).status == 401
        assert gateway.gateway.scheduler.loads() == []
        assert engine.seen == []
        assert (await gateway.rerank(key=MINTED.text)).status == 200
