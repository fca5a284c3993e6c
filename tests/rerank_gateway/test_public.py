"""What is public besides ranking: the list of models, the documentation, request ids, stopping."""

import asyncio
import json
import socket
from typing import Any

import pytest

from rerank_api import keys
from rerank_gateway import wire
from rerank_gateway.config import Settings
from rerank_gateway.dialects import paths
from rerank_gateway.protocol import Connection
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import BODY, MINTED, Running, running, slice_of, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_list_holds_what_the_key_may_call(gateway: Running) -> None:
    gateway.source.put(
        objects.model("cold", repo=None, aliases=["spare"], context_length=None),
        objects.model("elsewhere", namespace="team-b"),
    )
    answer = await gateway.get("/v1/models")
    assert answer.status == 200
    assert answer.body == {
        "object": "list",
        "data": [
            {
                "id": "cold",
                "object": "model",
                "created": 1767225600,
                "owned_by": "default",
                "root": None,
                "aliases": ["spare"],
                "ready": False,
                "category": "reranker",
                "max_model_len": None,
            },
            {
                "id": "minilm",
                "object": "model",
                "created": 1767225600,
                "owned_by": "default",
                "root": "sentence-transformers/all-MiniLM-L6-v2",
                "aliases": [],
                "ready": True,
                "category": "reranker",
                "max_model_len": 512,
            },
        ],
    }
    plain = await gateway.get("/models")
    assert "object" not in plain.body
    assert plain.body["data"] == answer.body["data"]


async def test_a_narrow_key_sees_its_models_only(gateway: Running) -> None:
    narrow = keys.mint()
    gateway.source.put(
        objects.model("other", repo=None), objects.api_key(narrow, name="narrow", models=["other"])
    )
    answer = await gateway.get("/v1/models", key=narrow.text)
    assert [model["id"] for model in answer.body["data"]] == ["other"]
    assert (await gateway.get("/v1/models", key=None)).status == 401


async def test_a_shared_model_is_listed_by_the_name_that_stays_its_own(gateway: Running) -> None:
    gateway.source.put(
        objects.model(namespace="team-b", shared_with=["default"], aliases=["best"]),
        objects.model("theirs", namespace="team-b"),
    )
    answer = await gateway.get("/v1/models")
    own, shared = answer.body["data"]
    assert (own["id"], own["owned_by"]) == ("minilm", "default")
    assert (shared["id"], shared["owned_by"], shared["ready"]) == ("team-b/minilm", "team-b", False)
    assert shared["aliases"] == ["best"], "minilm leads to one's own"


async def test_the_description_covers_every_path_and_real_answers(gateway: Running) -> None:
    description = (await gateway.get("/openapi.json", key=None)).body
    assert set(description["paths"]) == {*paths.PATHS, paths.PER_MODEL, "/v1/models", "/models"}
    schemas = description["components"]["schemas"]
    text = json.dumps(description)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas
    for model, body in (
        (wire.RerankAnswer, (await gateway.rerank()).body),
        (wire.RerankAnswer, (await gateway.rerank(documents=["word " * 600])).body),
        (wire.RerankAnswer, (await gateway.rerank(path="/v2/rerank")).body),
        (wire.VoyageAnswer, (await gateway.rerank(top_k=2, return_documents=True)).body),
        (wire.TeiEntry, (await gateway.rerank(texts=["a"], return_text=True)).body[0]),
        (wire.ScoreAnswer, (await gateway.rerank(queries=["q"], path="/v1/score")).body),
        (wire.ScoreAnswer, (await gateway.rerank(queries="q", items="word " * 600, path="/score")).body),
        (wire.ModelList, (await gateway.get("/v1/models")).body),
        (wire.Error, (await gateway.rerank(b"")).body),
    ):
        assert model.model_validate(body).model_dump(exclude_unset=True) == body
        assert model.__name__ in schemas
    page = await gateway.get("/docs", key=None)
    assert page.status == 200
    assert b"/openapi.json" in page.body


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("abc-1.2_X", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("é", False), ("", False)],
)
async def test_a_sane_request_id_is_kept(gateway: Running, sent: str, kept: bool) -> None:
    answer = await gateway.rerank(headers={"X-Request-Id": sent})
    assert (answer.headers["X-Request-Id"] == sent) == kept
    assert answer.headers["X-Request-Id"]


async def test_a_trace_goes_on_to_the_replica(gateway: Running, engine: FakeEngine) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    await gateway.rerank(headers=headers)
    first = dict(engine.seen[0].headers)
    assert first["traceparent"].split("-")[1] == trace
    assert first["tracestate"] == "vendor=1"
    answer = await gateway.raw(
        b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
        + f"X-API-Key: {MINTED.text}\r\n".encode()
        + f"traceparent: {headers['traceparent']}\r\n".encode() * 2
        + b"Content-Length: %d\r\n\r\n%s" % (len(json.dumps(BODY)), json.dumps(BODY).encode())
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "traceparent" not in dict(engine.seen[1].headers)  # two of them are none


async def test_the_log_names_the_request_as_the_replica_knows_it(
    gateway: Running, engine: FakeEngine, capsys: Any
) -> None:
    await gateway.rerank(headers={"X-Request-Id": "ours-and-theirs"})
    logged = capsys.readouterr().out
    named = dict(engine.seen[0].headers)["x-request-id"]
    assert named.endswith("-1")
    assert f"backend_request_id={named.removesuffix('-1')}" in logged
    assert "ours-and-theirs" in logged


async def test_metrics_count_by_model_and_code(gateway: Running) -> None:
    await gateway.rerank()
    await gateway.rerank(model="unknown")
    text = (await gateway.internal("/metrics")).body.decode()
    assert 'rerank_gateway_requests_total{code="200",model="minilm",namespace="default"}' in text
    assert 'rerank_gateway_requests_total{code="404",model="",namespace=""}' in text
    assert "unknown" not in text
    assert 'rerank_gateway_watch_age_seconds{watch="by hand"} 0.0' in text
    assert "rerank_gateway_event_loop_lag_seconds_bucket" in text
    assert "rerank_gateway_requests_in_flight 0.0" in text


async def test_readiness_waits_for_the_first_lists(shared: Running) -> None:
    assert (await shared.internal("/readyz")).status == 200
    shared.source.synced = False
    answer = await shared.internal("/readyz")
    shared.source.synced = True
    assert (answer.status, answer.body) == (503, b"not listed yet: apikeys\n")
    assert (await shared.internal("/livez")).status == 200
    assert (await shared.internal("/secret")).status == 404


async def test_the_internal_paths_are_not_public(gateway: Running) -> None:
    for path in ("/metrics", "/readyz", "/livez"):
        assert (await gateway.get(path)).status == 404


async def test_stopping_fails_no_request(engine: FakeEngine) -> None:
    async with running(Settings(drain_seconds=1.5)) as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))
        first = await gateway.rerank()
        assert "Connection" not in first.headers
        gateway.gateway.stop()
        await asyncio.sleep(0)
        assert (await gateway.internal("/readyz")).body == b"draining\n"
        answer = await gateway.rerank()  # on the connection of before
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert (await gateway.rerank()).status == 200  # on a new one
        engine.always = "hold"
        late = asyncio.create_task(gateway.rerank())
        await until(lambda: bool(engine.seen) and len(engine.seen) == 4)
        await until(lambda: _refuses(gateway))
        engine.release.set()
        assert (await late).status == 200
        await asyncio.wait_for(asyncio.shield(gateway.task), 5)


def _refuses(gateway: Running) -> bool:
    """Whether the public port no longer listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) != 0


async def test_an_idle_connection_is_closed_when_a_gateway_stops(engine: FakeEngine) -> None:
    async with running(Settings(drain_seconds=0)) as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))
        opened = [await kept(gateway), await asyncio.open_connection("127.0.0.1", gateway.port)]
        gateway.gateway.stop()
        for reader, writer in opened:
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        await asyncio.wait_for(asyncio.shield(gateway.task), 5)


async def test_what_was_sent_before_the_close_is_served(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in the socket, unread, when the connection is to be closed."""
    made: list[Connection] = []
    connection_made = Connection.connection_made

    def remember(self: Connection, transport: Any) -> None:
        made.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", remember)
    async with running(Settings(drain_seconds=0)) as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))
        reader, writer = await kept(gateway)
        gateway.gateway._lifecycle.draining = True
        writer.write(REQUEST)  # asyncio sends at once
        made[0].shutdown()
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


REQUEST = (
    f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {MINTED.text}\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(json.dumps(BODY))}\r\n\r\n{json.dumps(BODY)}"
).encode()


async def kept(gateway: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has been used once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(REQUEST)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    return reader, writer


async def test_a_source_that_fails_ends_the_gateway() -> None:
    async with running(Settings(drain_seconds=60)) as gateway:
        gateway.source.crash.set()
        with pytest.raises(RuntimeError, match="the source failed"):
            await asyncio.wait_for(asyncio.shield(gateway.task), 5)


async def test_logs_hold_neither_bodies_nor_keys(gateway: Running, capsys: Any) -> None:
    await gateway.rerank(headers={"X-Request-Id": "logged"})
    text = capsys.readouterr().out
    assert "logged" in text
    assert MINTED.key_id in text
    assert MINTED.text not in text
    assert "panda" not in text
