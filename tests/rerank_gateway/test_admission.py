"""Limits as clients meet them: whole gateways, one and three, over real sockets."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from rerank_api import keys
from rerank_gateway import admission, peers, shares
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import BODY, MINTED, Answer, Running, running, slice_of, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

OTHER = keys.mint()
DOCUMENTS = len(BODY["documents"])
TOKENS = 43  # of the panda request, as the engine counts


@pytest_asyncio.fixture(loop_scope="session")
async def limited(engine: FakeEngine) -> AsyncIterator[Running]:
    """A gateway of its own, so that nothing was consumed before."""
    async with running() as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))
        yield gateway


def limit(gateway: Running, **limits: int) -> None:
    gateway.source.put(objects.api_key(MINTED, limits=limits), objects.api_key(OTHER, name="other"))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, nobody is told to come again, or taken for silent."""
    monkeypatch.setattr(shares, "WAIT_SECONDS", 30)
    monkeypatch.setattr(peers, "_DEADLINE_SECONDS", 30)


@contextlib.asynccontextmanager
async def three(engine: FakeEngine, **limits: int) -> AsyncIterator[list[Running]]:
    """Three gateways that know one another."""
    async with contextlib.AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(running()) for _ in range(3)]
        ports = [internal_port(gateway) for gateway in gateways]
        for gateway in gateways:
            gateway.source.put(objects.model(), *slice_of([engine]), *map(objects.peers_slice, ports))
            limit(gateway, **limits)
        for gateway in gateways:
            peers = gateway.gateway._peers
            await until(lambda peers=peers: peers.replicas == 3)  # type: ignore[misc]
        yield gateways


def internal_port(gateway: Running) -> int:
    return int(gateway.internal_url.rpartition(":")[2])


async def until_ready(gateway: Running) -> None:
    end = time.monotonic() + 5
    while (await gateway.internal("/readyz")).status != 200:
        assert time.monotonic() < end, "not ready in time"


def error(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.body["error"]["code"], answer.body["message"]


async def test_a_key_without_limits_gets_no_headers(limited: Running) -> None:
    answer = await limited.rerank()
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("x-ratelimit")]


async def test_answers_say_what_is_left(limited: Running) -> None:
    limit(limited, requestsPerMinute=10, documentsPerMinute=100, tokensPerMinute=1000)
    answer = await limited.rerank()
    assert answer.status == 200
    told = {
        name[12:].lower(): value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")
    }
    assert {name: value for name, value in told.items() if not name.startswith("reset")} == {
        "limit-requests": "10",
        "remaining-requests": "9",
        "limit-documents": "100",
        "remaining-documents": str(100 - DOCUMENTS),
        "limit-tokens": "1000",
        "remaining-tokens": str(1000 - TOKENS),
    }
    for unit in ("requests", "documents", "tokens"):
        assert 58 <= int(told[f"reset-{unit}"].removesuffix("s")) <= 60


async def test_beyond_a_limit_the_answer_says_which_and_until_when(limited: Running) -> None:
    limit(limited, requestsPerMinute=2)
    assert [(await limited.rerank()).status for _ in range(2)] == [200, 200]
    answer = await limited.rerank()
    seconds = int(answer.headers["Retry-After"])
    assert 57 <= seconds <= 60
    status, code, message = error(answer)
    assert (status, code) == (429, "rate_limit_exceeded")
    assert message == (
        "This API key has used 2 of the 2 requests a minute that spec.limits.requestsPerMinute of the APIKey "
        f"default/search allows, and this request needs 1 more. Try again in {seconds} seconds."
    )
    assert answer.body["error"]["type"] == "rate_limit_error"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("limits", "passing"),
    [
        ({"documentsPerMinute": 2 * DOCUMENTS + 1}, 2),
        ({"documentsPerMinute": 2 * DOCUMENTS}, 2),
        ({"tokensPerMinute": 4 * TOKENS - 1}, 3),
        ({"requestsPerMinute": 1, "documentsPerMinute": 100}, 1),
    ],
)
async def test_every_limit_holds(limited: Running, limits: dict[str, int], passing: int) -> None:
    limit(limited, **limits)
    answers = [(await limited.rerank()).status for _ in range(passing + 2)]
    assert answers == [200] * passing + [429, 429]


async def test_a_spent_key_is_refused_before_its_body_is_read(limited: Running, engine: FakeEngine) -> None:
    limit(limited, documentsPerMinute=DOCUMENTS)
    assert (await limited.rerank()).status == 200
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {MINTED.text}\r\n"
        "Content-Type: application/json\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
    )
    answer = await limited.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"100 Continue" not in answer
    assert len(engine.seen) == 1


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"documentsPerRequest": 2}, "spec.limits.documentsPerRequest of the APIKey default/search allows 2"),
        ({"documentsPerMinute": 2}, "spec.limits.documentsPerMinute of the APIKey default/search allows 2"),
    ],
)
async def test_what_could_never_be_admitted_is_invalid(
    limited: Running, engine: FakeEngine, limits: dict[str, int], named: str
) -> None:
    limit(limited, **limits)
    answer = await limited.rerank()
    status, code, message = error(answer)
    assert (status, code, answer.param) == (400, "request_exceeds_limit", "documents")
    assert named in message
    assert "Retry-After" not in answer.headers
    assert engine.seen == []
    texts = await limited.rerank({"model": "minilm", "query": "q", "texts": ["a", "b", "c"] * 9})
    assert (texts.status, texts.param) == (400, "texts")


async def test_an_estimate_alone_refuses_no_request_for_ever(limited: Running) -> None:
    """It is moved by what others send. The whole limit is waited for, and what was read is paid."""
    limit(limited, tokensPerMinute=TOKENS)  # the estimate is more
    answer = await limited.rerank()
    assert (answer.status, answer.headers["x-ratelimit-remaining-tokens"]) == (200, "0")
    limit(limited, tokensPerMinute=TOKENS + 1)
    assert error(await limited.rerank())[:2] == (429, "rate_limit_exceeded")


async def test_concurrency_counts_what_is_in_progress(limited: Running, engine: FakeEngine) -> None:
    limit(limited, concurrentRequests=2)
    engine.behave.extend(["hold", "hold"])
    held = [asyncio.create_task(limited.rerank()) for _ in range(2)]
    await until(lambda: len(engine.seen) == 2)
    answer = await limited.rerank()
    assert error(answer)[:2] == (429, "rate_limit_exceeded")
    assert "spec.limits.concurrentRequests of the APIKey default/search" in answer.body["message"]
    assert answer.headers["Retry-After"] == "1"
    engine.release.set()
    assert [(await task).status for task in held] == [200, 200]
    assert (await limited.rerank()).status == 200


async def test_a_place_is_free_when_its_client_left(limited: Running, engine: FakeEngine) -> None:
    limit(limited, concurrentRequests=1, documentsPerMinute=100)
    engine.behave.append("hold")
    held = asyncio.create_task(limited.rerank())
    await until(lambda: len(engine.seen) == 1)
    held.cancel()
    await until(lambda: engine.abandoned == 1)
    answer = await limited.rerank()
    assert answer.status == 200
    assert answer.headers["x-ratelimit-remaining-documents"] == str(100 - 2 * DOCUMENTS)  # both are spent


async def test_a_client_that_leaves_while_its_limits_are_asked_for_is_not_served(
    limited: Running, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(limited, documentsPerMinute=100)
    asked, left = asyncio.Event(), asyncio.Event()

    async def spend(*_: object) -> None:
        asked.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            left.set()
            raise

    monkeypatch.setattr(admission.Reservation, "spend", spend)
    request = asyncio.create_task(limited.rerank())
    await asyncio.wait_for(asked.wait(), 5)
    request.cancel()
    await asyncio.wait_for(left.wait(), 5)
    assert engine.seen == []


@pytest.mark.parametrize("behaviour", ["fail", "nan", "not_json"])
async def test_what_a_model_failed_at_is_given_back(
    limited: Running, engine: FakeEngine, behaviour: Any
) -> None:
    limit(limited, requestsPerMinute=10, documentsPerMinute=100, tokensPerMinute=1000)
    engine.behave.append(behaviour)
    assert (await limited.rerank()).status == 502
    answer = await limited.rerank()
    assert answer.headers["x-ratelimit-remaining-requests"] == "8"
    assert answer.headers["x-ratelimit-remaining-documents"] == str(100 - DOCUMENTS)
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(1000 - TOKENS)


async def test_what_is_refused_for_its_size_costs_a_request_alone(limited: Running) -> None:
    limit(limited, requestsPerMinute=10, documentsPerMinute=DOCUMENTS + 1)
    assert (await limited.rerank()).status == 200
    assert (await limited.rerank()).status == 429
    answer = await limited.rerank(documents=["one"])
    assert answer.status == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "7"


async def test_limits_are_changed_while_they_are_used(limited: Running) -> None:
    limit(limited, requestsPerMinute=1)
    assert [(await limited.rerank()).status for _ in range(2)] == [200, 429]
    limit(limited, requestsPerMinute=3)
    assert [(await limited.rerank()).status for _ in range(3)] == [200, 200, 429]
    limit(limited)
    assert (await limited.rerank()).status == 200


@pytest.mark.parametrize(
    ("path", "body", "as_text"),
    [
        ("/v2/rerank", BODY, False),
        ("/v1/rerank", {**BODY, "top_k": None, "truncation": True}, True),
        ("/rerank", {"model": "minilm", "query": "q", "texts": ["a"]}, False),
        ("/v1/score", {"model": "minilm", "queries": "q", "documents": ["a"]}, False),
    ],
)
async def test_every_dialect_reads_the_refusal(
    limited: Running, path: str, body: dict[str, Any], as_text: bool
) -> None:
    limit(limited, requestsPerMinute=1)
    assert (await limited.rerank(body, path=path)).status == 200
    answer = await limited.rerank(body, path=path)
    assert answer.status == 429
    reason = answer.body["detail"]
    assert "spec.limits.requestsPerMinute" in reason
    assert answer.body["message"] == reason
    assert (answer.body["error"] if as_text else answer.body["error"]["message"]) == reason


async def test_a_key_over_its_limit_leaves_the_others_their_models(
    limited: Running, engine: FakeEngine
) -> None:
    limit(limited, requestsPerMinute=1, concurrentRequests=1)
    over = [asyncio.create_task(limited.rerank()) for _ in range(100)]
    answers = [(await limited.rerank(key=OTHER.text)).status for _ in range(20)]
    assert answers == [200] * 20
    assert Counter([(await task).status for task in over]) == {200: 1, 429: 99}
    assert len(engine.seen) == 21


async def test_three_gateways_keep_one_limit(engine: FakeEngine, patient: None) -> None:
    async with three(engine, requestsPerMinute=50) as gateways:
        requests = [gateways[number % 3].rerank() for number in range(120)]
        answers = Counter([answer.status for answer in await asyncio.gather(*requests)])
        assert answers == {200: 50, 429: 70}
        assert len(engine.seen) == 50
        after = [await gateway.rerank() for gateway in gateways]
        assert [answer.status for answer in after] == [429] * 3
        assert {answer.headers["x-ratelimit-remaining-requests"] for answer in after} == {"0"}


async def test_three_gateways_keep_one_concurrency(engine: FakeEngine, patient: None) -> None:
    async with three(engine, concurrentRequests=4) as gateways:
        engine.always = "hold"
        tasks = [asyncio.create_task(gateways[number % 3].rerank()) for number in range(12)]
        await until(lambda: sum(task.done() for task in tasks) == 8)
        assert len(engine.seen) == 4
        engine.release.set()
        assert Counter([(await task).status for task in tasks]) == {200: 4, 429: 8}


async def test_a_newcomer_is_ready_when_it_knows_what_was_consumed_before(engine: FakeEngine) -> None:
    async with three(engine, requestsPerMinute=10) as gateways:
        first, second, third = gateways
        assert [(await first.rerank()).status for _ in range(6)] == [200] * 6
        for gateway in (second, third):
            consumed = gateway.gateway._peers._consumption.consumed
            await until(lambda consumed=consumed: consumed("default/search", time.time()).requests == 6)  # type: ignore[misc]
        first.gateway.stop(at_once=True)
        await asyncio.wait([first.task])
        async with running(synced=False) as newcomer:
            assert (await newcomer.internal("/readyz")).body == (
                b"not listed yet: apikeys\nnot asked yet: the other gateways\n"
            )
            newcomer.source.put(
                objects.model(), *slice_of([engine]), objects.peers_slice(internal_port(second))
            )
            limit(newcomer, requestsPerMinute=10)
            newcomer.source.synced = True
            await until_ready(newcomer)
            assert [(await newcomer.rerank()).status for _ in range(5)] == [200] * 4 + [429]


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"])
async def test_a_peer_that_makes_no_sense_keeps_nobody_from_serving(
    engine: FakeEngine, answer: bytes | None
) -> None:
    """It is silent, hangs up, or answers something else; the gateway then serves its part of each limit."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            with contextlib.suppress(ConnectionError):
                await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    async with server, running(synced=False) as gateway:
        port = server.sockets[0].getsockname()[1]
        gateway.source.put(objects.model(), *slice_of([engine]), objects.peers_slice(port))
        limit(gateway, requestsPerMinute=4)
        gateway.source.synced = True
        await until_ready(gateway)
        assert [(await gateway.rerank()).status for _ in range(3)] == [200, 200, 429]
        outcome = b"malformed" if answer else b"silent"
        metrics = (await gateway.internal("/metrics")).body
        assert b'rerank_gateway_peer_answers_total{outcome="%s"}' % outcome in metrics
        gateway.source.put(objects.peers_slice(port, serving=False))
        peers = gateway.gateway._peers
        await until(lambda: not peers.silent())
        assert [(await gateway.rerank()).status for _ in range(3)] == [200, 200, 429]


async def test_what_peers_are_told_names_no_key_and_takes_any_question(limited: Running) -> None:
    limit(limited, requestsPerMinute=10)
    assert (await limited.rerank()).status == 200
    for query in (
        "",
        "?since=x",
        "?since=" + "9" * 5000,
        "?since=-1&process=%00",
        "?asking=,,default/search,",
    ):
        answer = await limited.internal("/consumption" + query)
        assert answer.status == 200
        assert answer.body["keys"].keys() == {"default/search"}
    assert MINTED.text not in str(answer.body)
    assert MINTED.key_id not in str(answer.body)
