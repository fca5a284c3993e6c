"""What keys used: the counts, what the operator is told, and a stop that loses nothing."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
from pydantic.alias_generators import to_camel
from structlog.testing import capture_logs

from rerank_api import keys
from rerank_api.api_key import LISTED_MODELS, OTHER_MODELS
from rerank_gateway import records
from rerank_gateway.config import Settings
from rerank_gateway.model_load import ModelLoad
from rerank_gateway.records import KeyRecord, Kind, ModelRecord
from rerank_gateway.usage import KEPT_SECONDS, PAGE_ROWS, Counts, Usage
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MINTED, Running, running, slice_of, until

ME = "00112233445566778899aabb"


def key(name: str = "search", uid: str = "u-1") -> KeyRecord:
    body = objects.api_key(MINTED, name=name)
    body["metadata"]["uid"] = uid
    record = records.parse(Kind.API_KEY, body)
    assert isinstance(record, KeyRecord)
    return record


def model(name: str = "minilm", namespace: str = "default") -> ModelRecord:
    record = records.parse(Kind.MODEL, objects.model(name, namespace=namespace))
    assert isinstance(record, ModelRecord)
    return record


def use(
    usage: Usage, of: KeyRecord, by: ModelRecord | None = None, status: int = 200, now: float = 5.5
) -> None:
    usage.record(of, by or model(), status, documents=3, tokens=40, now=now)


def page(usage: Usage, **query: object) -> Any:
    return json.loads(usage.page({name: str(value) for name, value in query.items()}, "serving"))


def named(answer: Mapping[str, Any]) -> list[str]:
    return [entry["name"] for entry in answer["keys"]]


def test_an_answered_request_counts_and_a_refused_one_is_rejected() -> None:
    usage = Usage(ME, told_apart=9)
    for status in (200, 200, 429, 400, 503, 499):
        use(usage, key(), status=status)
    assert page(usage) == {
        "process": ME,
        "phase": "serving",
        "version": 6,
        "more": False,
        "keys": [
            {
                "namespace": "default",
                "name": "search",
                "uid": "u-1",
                "lastUsed": 5.5,
                "models": [
                    {"name": "minilm", "requests": 2, "documents": 6, "tokens": 80, "rejected": 1},
                ],
            }
        ],
    }


def test_a_request_without_a_model_is_a_use_and_no_count() -> None:
    usage = Usage(ME, told_apart=9)
    usage.record(key(), None, 200, documents=0, tokens=0, now=7.0)
    (entry,) = page(usage)["keys"]
    assert (entry["lastUsed"], entry["models"]) == (7.0, [])


def test_a_model_of_another_namespace_is_named_with_it() -> None:
    usage = Usage(ME, told_apart=9)
    use(usage, key(), model("minilm", "team-b"))
    assert page(usage)["keys"][0]["models"][0]["name"] == "team-b/minilm"


def test_models_beyond_the_bound_are_counted_together() -> None:
    usage = Usage(ME, told_apart=9)
    for number in range(LISTED_MODELS + 5):
        use(usage, key(), model(f"m-{number}"))
    rows = page(usage)["keys"][0]["models"]
    assert [row["name"] for row in rows[-2:]] == [f"m-{LISTED_MODELS - 1}", OTHER_MODELS]
    assert rows[-1]["requests"] == 5


def test_only_what_changed_is_told_again() -> None:
    usage = Usage(ME, told_apart=9)
    for name in ("a", "b", "c"):
        use(usage, key(name))
    assert named(page(usage)) == ["a", "b", "c"]
    use(usage, key("a"))
    assert named(page(usage, process=ME, since=3)) == ["a"]
    assert named(page(usage, process=ME, since=4)) == []


@pytest.mark.parametrize("since", ["", "x", "-1", "9" * 40, "1.5"])
def test_a_position_that_is_none_means_everything(since: str) -> None:
    usage = Usage(ME, told_apart=9)
    use(usage, key())
    assert named(page(usage, process=ME, since=since)) == ["search"]


def test_a_position_in_another_process_means_everything_and_saves_nothing() -> None:
    usage = Usage(ME, told_apart=9)
    use(usage, key())
    answer = page(usage, process="another", since=1, saved=1)
    assert (named(answer), answer["version"]) == (["search"], 1)
    assert usage._saved == 0


def test_a_long_answer_comes_in_pages_and_nothing_is_missed() -> None:
    usage = Usage(ME, told_apart=0)
    count = PAGE_ROWS + PAGE_ROWS // 2
    for number in range(count):
        use(usage, key(f"k-{number}"))
    first = page(usage)
    assert (len(first["keys"]), first["more"], first["version"]) == (PAGE_ROWS, True, PAGE_ROWS)
    use(usage, key("k-0"))  # in the meantime
    second = page(usage, process=ME, since=first["version"])
    assert (second["more"], second["version"]) == (False, count + 1)
    assert {*named(first), *named(second)} == {f"k-{number}" for number in range(count)}
    assert named(second)[-1] == "k-0"


def test_a_deleted_key_is_forgotten_after_a_while_and_a_missing_one_is_not() -> None:
    usage = Usage(ME, told_apart=9)
    use(usage, key("gone"))
    use(usage, key("back"))
    usage.sweep(lambda _: False, 0.0)
    usage.sweep(lambda used: used.id.name == "back", 1.0)
    usage.sweep(lambda _: False, KEPT_SECONDS - 1)
    assert named(page(usage)) == ["gone", "back"]
    usage.sweep(lambda _: False, KEPT_SECONDS)
    assert named(page(usage)) == ["back"]


def test_a_key_that_was_made_anew_is_another() -> None:
    usage = Usage(ME, told_apart=9)
    use(usage, key(uid="u-1"))
    use(usage, key(uid="u-2"))
    assert [(entry["uid"], entry["models"][0]["requests"]) for entry in page(usage)["keys"]] == [
        ("u-1", 1),
        ("u-2", 1),
    ]


def test_the_first_keys_have_metrics_of_their_own_and_the_rest_never_goes_down() -> None:
    usage = Usage(ME, told_apart=1)
    for name in ("first", "second", "third"):
        use(usage, key(name))
    assert [used.key.id.name for used in usage.told_apart()] == ["first"]
    both = Counts(requests=2, documents=6, tokens=80)
    assert usage.others == both
    for now in (0.0, KEPT_SECONDS):
        usage.sweep(lambda used: used.id.name == "third", now)
    assert usage.others == both
    assert list(usage.told_apart()) == []
    use(usage, key("fourth"))  # takes the place that became free
    assert [used.key.id.name for used in usage.told_apart()] == ["fourth"]
    assert usage.others == both


async def test_the_wait_ends_when_the_last_version_is_saved() -> None:
    usage = Usage(ME, told_apart=9)
    await asyncio.wait_for(usage.saved(), 1)  # nothing was counted
    use(usage, key())
    page(usage, process=ME, since=1, saved=1)
    use(usage, key())
    waiting = asyncio.create_task(usage.saved())
    for saved in (0, 1):
        page(usage, process=ME, since=2, saved=saved)
        await asyncio.sleep(0)
        assert not waiting.done()
    page(usage, process=ME, since=2, saved=2)
    await asyncio.wait_for(waiting, 1)


session = pytest.mark.asyncio(loop_scope="session")


async def of_key(gateway: Running, name: str) -> Any:
    answer = (await gateway.internal("/usage")).body
    return next((entry for entry in answer["keys"] if entry["name"] == name), None)


@session
async def test_real_requests_are_counted_as_the_client_is_told(gateway: Running) -> None:
    minted = keys.mint()
    gateway.source.put(objects.api_key(minted, name="counted"))
    single = await gateway.rerank(key=minted.text)
    several = await gateway.rerank(
        {"model": "minilm", "queries": ["a b", "c"], "documents": ["d e f", "g"]},
        path="/v1/score",
        key=minted.text,
    )
    assert (single.status, several.status) == (200, 200)
    for body in (b"", json.dumps({"model": "minilm", "query": "q", "documents": []}).encode()):
        assert (await gateway.rerank(body, key=minted.text)).status == 400
    assert (await gateway.get("/v1/models", key=minted.text)).status == 200
    tokens = sum(answer.body["usage"]["total_tokens"] for answer in (single, several))
    used = await of_key(gateway, "counted")
    assert used["models"] == [
        {"name": "minilm", "requests": 2, "documents": 5, "tokens": tokens, "rejected": 0}
    ]


@session
@pytest.mark.parametrize(
    ("limits", "model"), [({"requestsPerMinute": 1}, OTHER_MODELS), ({"documentsPerMinute": 4}, "minilm")]
)
async def test_a_request_over_a_limit_is_rejected(
    gateway: Running, limits: dict[str, int], model: str
) -> None:
    """Without a model where it is refused before the body is read."""
    minted = keys.mint()
    name = f"limited-{model.strip('()')}"
    gateway.source.put(objects.api_key(minted, name=name, limits=limits))
    answers = [(await gateway.rerank(key=minted.text)).status for _ in range(3)]
    assert answers == [200, 429, 429]
    rows = {row["name"]: row for row in (await of_key(gateway, name))["models"]}
    assert rows["minilm"]["requests"] == 1
    assert rows[model]["rejected"] == 2


@session
async def test_a_bad_key_is_counted_nowhere(gateway: Running) -> None:
    before = (await gateway.internal("/usage")).body["version"]
    assert (await gateway.rerank(key="rk_wrong")).status == 401
    assert (await gateway.internal("/usage")).body["version"] == before


@session
async def test_metrics_tell_keys_by_the_name_of_their_object(gateway: Running) -> None:
    await gateway.rerank()
    text = (await gateway.internal("/metrics")).body.decode()
    labels = '{api_key="search",model="minilm",namespace="default"}'
    for name in ("requests", "documents", "tokens", "rejected"):
        assert f"rerank_gateway_key_{name}_total{labels}" in text
    assert 'rerank_gateway_key_requests_total{api_key="(other)",model="",namespace=""}' in text
    assert 'rerank_gateway_tokens_total{model="minilm",namespace="default"}' in text
    assert 'rerank_gateway_documents_total{model="minilm",namespace="default"}' in text
    assert MINTED.text not in text


LOAD = [one.name for one in fields(ModelLoad) if one.name != "model"]


async def loads(gateway: Running) -> dict[str, Any]:
    answer = (await gateway.internal("/load")).body
    return {load["name"]: load for load in answer["models"]}


@session
async def test_the_load_of_each_model_and_replica(gateway: Running, engine: FakeEngine) -> None:
    gateway.source.put(objects.model("unasked", repo=None))
    engine.always = "hold"
    waiting = asyncio.create_task(gateway.rerank())
    await until(lambda: bool(engine.seen))
    busy = await loads(gateway)
    engine.release.set()
    await waiting
    assert busy["unasked"] == {"namespace": "default", "name": "unasked", "replicas": []}
    (replica,) = busy["minilm"].pop("replicas")
    assert replica["address"] == f"{engine.host}:{engine.port}"
    assert replica["tokensInFlight"] == busy["minilm"]["runningTokens"] > 0
    assert 0 <= busy["minilm"]["idleSeconds"] < 60
    assert set(busy["minilm"]) == {"namespace", "name", *map(to_camel, LOAD)}
    idle = (await loads(gateway))["minilm"]
    assert idle["replicas"][0]["tokensInFlight"] == idle["runningTokens"] == 0


@session
async def test_the_latency_of_a_model_is_of_the_requests_that_were_ranked(engine: FakeEngine) -> None:
    async with running(Settings(drain_seconds=0)) as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))

        async def told() -> Any:
            return (await loads(gateway))["minilm"]["latency"]

        engine.behave.append("fail")
        assert (await gateway.rerank()).status == 502
        assert await told() is None
        engine.step_tokens, engine.step_seconds = 1000, 0.1
        sent = time.monotonic()
        assert (await gateway.rerank()).status == 200
        took = time.monotonic() - sent
        first = await told()
        assert set(first) == {"medianSeconds", "p95Seconds", "requests", "secondsAgo"}
        assert 0.095 < first["medianSeconds"] == first["p95Seconds"] < 1.05 * took
        assert 0 <= first["secondsAgo"] <= time.monotonic() - sent
        for _ in range(2):
            await gateway.rerank()
        assert (await told())["requests"] == 3


@session
async def test_the_internal_port_tells_its_process_and_takes_get_alone(gateway: Running) -> None:
    process = (await gateway.internal("/usage")).body["process"]
    for path in ("/livez", "/readyz", "/metrics", "/load", "/usage", "/nothing"):
        assert (await gateway.internal(path)).headers["X-Rerank-Process"] == process
    async with gateway.session.post(gateway.internal_url + "/usage") as response:
        assert response.status == 405
    for path in ("/usage", "/load"):
        assert (await gateway.get(path)).status == 404


@session
async def test_a_stopping_gateway_waits_until_its_counts_are_saved(engine: FakeEngine) -> None:
    async with running(Settings(drain_seconds=0, usage_wait_seconds=30)) as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))
        first = (await gateway.internal("/usage")).body
        assert first["phase"] == "serving"
        engine.always = "hold"
        late = asyncio.create_task(gateway.rerank())
        await until(lambda: bool(engine.seen))
        gateway.gateway.stop()
        await asyncio.sleep(0)
        assert (await gateway.internal("/usage")).body["phase"] == "draining"
        engine.release.set()
        assert (await late).status == 200

        async def phase(**query: object) -> Any:
            text = "&".join(f"{name}={value}" for name, value in query.items())
            return (await gateway.internal(f"/usage?{text}")).body

        await until(lambda: gateway.gateway._lifecycle.stopped)
        last = await phase()
        assert last["phase"] == "stopped"
        assert last["keys"][0]["models"][0]["requests"] == 1
        assert not gateway.task.done()
        await phase(process=first["process"], since=last["version"], saved=last["version"])
        await asyncio.wait_for(asyncio.shield(gateway.task), 5)


@session
@pytest.mark.parametrize(
    ("settings", "at_once"),
    [(Settings(drain_seconds=0, usage_wait_seconds=0.2), False), (Settings(usage_wait_seconds=60), True)],
    ids=["only so long", "not when told to stop at once"],
)
async def test_a_gateway_whose_counts_nobody_saves_stops_all_the_same(
    engine: FakeEngine, settings: Settings, at_once: bool, capsys: Any
) -> None:
    async with running(settings) as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))
        assert (await gateway.rerank()).status == 200
        gateway.gateway.stop(at_once=at_once)
        await asyncio.wait_for(asyncio.shield(gateway.task), 5)
    assert "usage_not_saved" in capsys.readouterr().out


@session
async def test_an_unused_gateway_stops_without_waiting() -> None:
    async with running(Settings(drain_seconds=0, usage_wait_seconds=60)) as gateway:
        gateway.gateway.stop()
        await asyncio.wait_for(asyncio.shield(gateway.task), 5)


def requests(logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["event"] == "request"]


@session
async def test_the_access_log_has_one_entry_for_each_request(gateway: Running) -> None:
    with capture_logs() as logs:
        await gateway.rerank(headers={"X-Request-Id": "r-9"})
        await gateway.rerank(key=None)
    answered, refused = requests(logs)
    assert all(answered.pop(volatile) for volatile in ("ms", "ranking_ms", "backend_request_id"))
    assert answered == {
        "event": "request",
        "log_level": "info",
        "request_id": "r-9",
        "method": "POST",
        "path": "/v1/rerank",
        "status": 200,
        "key": MINTED.key_id,
        "namespace": "default",
        "model": "minilm",
        "documents": 3,
        "tokens": 43,
    }
    assert (refused["status"], refused["error"]) == (401, "missing_api_key")
    assert "key" not in refused


@session
async def test_a_sample_of_none_logs_failures_alone(engine: FakeEngine) -> None:
    async with running(Settings(drain_seconds=0, access_log_sample=0)) as gateway:
        gateway.source.put(objects.model(), *slice_of([engine]))
        with capture_logs() as logs:
            assert (await gateway.rerank()).status == 200
            assert (await gateway.rerank(key=None)).status == 401
            engine.always = "fail"
            failed = (await gateway.rerank()).status
    assert failed >= 500
    assert [entry["status"] for entry in requests(logs)] == [failed]
