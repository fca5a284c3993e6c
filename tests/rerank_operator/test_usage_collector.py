"""The collector against gateways on real sockets; the API server is a few objects in memory."""

import asyncio
import copy
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from rerank_api import backend_token, keys
from rerank_api.api_key import APIKey
from rerank_gateway import usage as gateway_usage
from rerank_gateway.config import Settings
from rerank_gateway.records import KeyRecord, ModelRecord, ObjectId
from rerank_operator import bounded, usage_report
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.cluster import Cluster
from rerank_operator.gateways import Gateways
from rerank_operator.health import Metrics
from rerank_operator.resources import Object, Resource
from rerank_operator.usage_collector import Collector
from rerank_operator.usage_ledger import Ledger
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MASTER, running, slice_of, until
from tests.rerank_operator.known_gateways import Known

pytestmark = pytest.mark.slow

MODEL = ModelRecord(ObjectId("team", "m"), 0, ("m",), (), None, None)


def record(name: str = "k", uid: str = "u") -> KeyRecord:
    return KeyRecord(ObjectId("team", name), uid, 0, name, (), None, 9e9, False)


class Objects(Cluster):
    """Holds APIKeys; counts what is asked; may refuse."""

    def __init__(self, *names: str) -> None:
        super().__init__(api=None)  # type: ignore[arg-type]  # nothing is connected
        self.keys: dict[str, Object] = {
            name: {
                "metadata": {"name": name, "namespace": "team", "uid": "u", "resourceVersion": "1"},
                "spec": {},
                "status": {"keyId": "kept"},
            }
            for name in names
        }
        self.refusal: Exception | None = None
        self.before_write: Any = lambda: None
        self.gets = 0
        self.writes: list[str] = []

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        assert (resource.kind, namespace) == ("APIKey", "team")
        self.gets += 1
        return copy.deepcopy(self.keys.get(name))

    async def apply_status(
        self, resource: Resource, live: Object, status: Object, *, field_manager: str = ""
    ) -> Object:
        name = live["metadata"]["name"]
        self.before_write()
        if self.refusal is not None:
            raise self.refusal
        held = self.keys[name]
        if held["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "changed")
        assert field_manager == "rerank-operator/usage"
        assert set(status) <= {"usage", "lastUsedTime"}
        held["status"].update(copy.deepcopy(status))
        held["metadata"]["resourceVersion"] += "1"
        self.writes.append(name)
        return held

    def requests(self, name: str = "k") -> int:
        usage = APIKey.parse(self.keys[name]).status.usage
        return usage.requests if usage else 0


@dataclass
class FakeGateway:
    """One address."""

    host: str
    usage: gateway_usage.Usage
    phase: str = "serving"
    body: bytes | None = None
    status: int = 200
    hangs: bool = False
    queries: list[dict[str, str]] = field(default_factory=list)

    def use(self, name: str = "k", times: int = 1, *, uid: str = "u") -> None:
        for _ in range(times):
            self.usage.record(record(name, uid), MODEL, 200, documents=1, tokens=1, now=time.time())

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/usage"
        self.queries.append(dict(request.query))
        if self.hangs:
            await asyncio.sleep(60)
        body = self.usage.page(request.query, self.phase) if self.body is None else self.body
        return web.Response(body=body, status=self.status, headers={"Location": "http://127.0.0.1:1/usage"})


@dataclass
class Stage:
    """Two gateways and a collector."""

    first: FakeGateway
    second: FakeGateway
    api: Objects
    gateways: Known
    collector: Collector

    def another(self) -> Collector:
        """The operator after a restart."""
        return Collector(self.api, self.gateways, Metrics(), Ledger(60.0), 10.0)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    runners = []
    fakes = [
        FakeGateway(f"127.0.0.{number}", gateway_usage.Usage(f"{number:016x}", told_apart=1))
        for number in (2, 3)
    ]
    port = 0
    for fake in fakes:
        app = web.Application()
        app.router.add_get("/{path:.*}", fake.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, fake.host, port).start()
        port = runner.addresses[0][1]
        runners.append(runner)
    monkeypatch.setattr("rerank_operator.gateways.DEADLINE_SECONDS", 0.5)
    gateways = Known("peers", port)
    gateways.known = frozenset(fake.host for fake in fakes)
    api = Objects("k", "other")
    collector = Collector(api, gateways, Metrics(), Ledger(60.0), 10.0)
    yield Stage(fakes[0], fakes[1], api, gateways, collector)
    await gateways.close()
    for runner in runners:
        await runner.cleanup()


async def test_all_gateways_are_added_up_and_nothing_else_is_touched(stage: Stage) -> None:
    stage.first.use(times=2)
    stage.second.use(times=3)
    await stage.collector.collect()
    key = APIKey.parse(stage.api.keys["k"])
    assert key.status.usage is not None
    assert (key.status.usage.requests, key.status.usage.tokens) == (5, 5)
    assert {gateway.id for gateway in key.status.usage.gateways} == {"0" * 15 + "2", "0" * 15 + "3"}
    assert key.status.last_used_time is not None
    assert key.status.last_used_time.microsecond == 0
    assert key.status.key_id == "kept"
    assert stage.api.writes == ["k"]


async def test_an_idle_gateway_costs_no_request_to_the_api_server(stage: Stage) -> None:
    stage.first.use()
    await stage.collector.collect()
    asked = stage.api.gets
    for _ in range(3):
        await stage.collector.collect(everything=True)
    assert (stage.api.gets, stage.api.writes) == (asked, ["k"])


async def test_a_restarted_operator_finds_all_of_it_written(stage: Stage) -> None:
    stage.first.use(times=4)
    await stage.collector.collect()
    again = stage.another()
    await again.collect()
    assert (stage.api.writes, stage.api.requests()) == (["k"], 4)
    stage.first.use()
    await again.collect()
    assert stage.api.requests() == 5


async def test_a_restarted_gateway_goes_on_from_zero(stage: Stage) -> None:
    stage.first.use(times=4)
    await stage.collector.collect()
    stage.first.usage = gateway_usage.Usage("f" * 16, told_apart=1)
    stage.first.use(times=1)
    await stage.collector.collect(everything=True)
    assert stage.api.requests() == 5


async def test_a_conflict_is_tried_again_and_counts_once(stage: Stage) -> None:
    stage.first.use()

    def interfere() -> None:
        stage.api.keys["k"]["metadata"]["resourceVersion"] += "x"

    stage.api.before_write = interfere
    await stage.collector.collect()
    assert stage.api.writes == []
    stage.api.before_write = lambda: None
    await stage.collector.collect()
    assert stage.api.requests() == 1


@pytest.mark.parametrize(
    "refusal",
    [ApiError(0, "Unreachable", "gone"), ApiError(500, "", ""), ApiError(429, "", ""), NotLeaderError()],
)
async def test_what_could_not_be_written_is_kept(stage: Stage, refusal: Exception) -> None:
    stage.first.use()
    stage.api.refusal = refusal
    with capture_logs() as logs:
        await stage.collector.collect()
    assert "not" in logs[-1]["event"]
    stage.api.refusal = None
    await stage.collector.collect()
    assert stage.api.requests() == 1


async def test_a_refused_write_holds_up_nobody(stage: Stage) -> None:
    stage.first.use("other")
    stage.api.refusal = ApiError(403, "Forbidden", "no")
    with capture_logs() as logs:
        await stage.collector.collect()
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["usage was refused"]
    stage.api.refusal = None
    stage.first.use("other")  # told since the start, so nothing is lost
    await stage.collector.collect()
    assert stage.api.requests("other") == 2


@pytest.mark.parametrize(("name", "uid"), [("unknown", "u"), ("k", "of an earlier key".replace(" ", "-"))])
async def test_a_key_that_is_not_there_any_more_is_passed_over(stage: Stage, name: str, uid: str) -> None:
    stage.first.use(name, uid=uid)
    await stage.collector.collect()
    assert stage.api.writes == []
    assert len(stage.collector.ledger) == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"body": b"garbage"},
        {"body": b"[" * 100_000},
        {"body": b" " * (usage_report.SIZE_LIMIT_BYTES + 1)},
        {"status": 500},
        {"status": 302},
        {"hangs": True},
    ],
)
async def test_a_gateway_that_talks_nonsense_disturbs_no_other(stage: Stage, fault: dict[str, Any]) -> None:
    stage.first.use("other")
    await stage.collector.collect()
    stage.first.use(times=2)
    stage.second.use(times=3)
    for name, value in fault.items():
        setattr(stage.first, name, value)
    await stage.collector.collect()
    assert stage.api.requests() == 3
    for name, value in {"body": None, "status": 200, "hangs": False}.items():
        setattr(stage.first, name, value)
    await stage.collector.collect(everything=True)
    assert stage.api.requests() == 5
    assert stage.first.queries[-1]["since"] == "1"  # and need not tell again what it told before


async def test_a_stopping_gateway_is_told_when_its_last_is_saved(stage: Stage) -> None:
    stage.first.use()
    stage.first.phase = "draining"
    await stage.collector.collect()
    stage.first.use(times=2)
    stage.first.phase = "stopped"
    stage.gateways.known = frozenset({stage.second.host})  # DNS may forget it first
    waiting = asyncio.create_task(stage.first.usage.saved())
    await stage.collector.collect()
    assert stage.collector.ledger.hurried
    assert stage.api.requests() == 3
    assert not waiting.done()
    await stage.collector.collect()
    await asyncio.wait_for(waiting, 1)


async def test_a_gateway_that_finds_no_room_is_not_told_that_it_may_go(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.first.use()
    await stage.collector.collect()
    monkeypatch.setattr("rerank_operator.usage.MAX_GATEWAYS", 1)
    stage.second.use(times=2)
    stage.second.phase = "stopped"
    for _ in range(3):
        await stage.collector.collect(everything=True)
    assert (stage.api.requests(), stage.second.usage._saved) == (1, 0)
    monkeypatch.setattr("rerank_operator.usage.MAX_GATEWAYS", 2)
    for _ in range(2):
        await stage.collector.collect(everything=True)
    assert (stage.api.requests(), stage.second.usage._saved) == (3, 2)


async def test_many_pages_are_one_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_usage, "PAGE_ROWS", 3)
    names = [f"k-{number}" for number in range(10)]
    stage.api.keys = Objects(*names).keys
    for name in names:
        stage.first.use(name)
    await stage.collector.collect()
    assert sorted(stage.api.writes) == names
    assert len(stage.first.queries) == 4


async def test_no_gateway_is_said_once(stage: Stage) -> None:
    stage.gateways.known = frozenset()
    with capture_logs() as logs:
        await stage.collector.collect()
        await stage.collector.collect()
    assert [entry["event"] for entry in logs] == ["no gateway found"]


async def test_addresses_come_from_the_name() -> None:
    for host, wanted in (("127.0.0.1", {"127.0.0.1"}), ("nobody.invalid", set()), ("a" * 300, set())):
        gateways = Gateways(host, 8081)
        assert await gateways.addresses() == wanted
        await gateways.close()


async def test_a_bounded_answer_of_an_ipv6_address() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"12345")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "::1", 0).start()
    except OSError:
        await runner.cleanup()
        pytest.skip("this machine has no IPv6")
    client: aiohttp.ClientSession = bounded.session(deadline=2, connections=1)
    port = runner.addresses[0][1]
    assert await bounded.get(client, "::1", port, "/", limit=5) == b"12345"
    assert await bounded.get(client, "::1", port, "/", limit=4) is None
    await client.close()
    await runner.cleanup()


async def test_a_gateway_that_is_stopped_under_load_is_counted_to_its_last_request() -> None:
    """The real one, its real port, and the collector as it runs."""
    settings = Settings(drain_seconds=0.3, usage_wait_seconds=30)
    async with FakeEngine(token=backend_token.token(MASTER, "team")) as engine, running(settings) as gateway:
        minted = keys.mint()
        key = objects.api_key(minted, name="k", namespace="team")
        key["metadata"]["uid"] = "u"
        gateway.source.put(key, objects.model(namespace="team"), *slice_of([engine], namespace="team"))
        api = Objects("k")
        gateways = Gateways("127.0.0.1", int(gateway.internal_url.rsplit(":", 1)[1]))
        collector = Collector(api, gateways, Metrics(), Ledger(60.0), 0.1)
        collecting = asyncio.create_task(collector.run())
        answered = int((await gateway.rerank(key=minted.text)).status == 200)
        await until(lambda: api.requests() == 1)  # the next write would be a minute later
        gateway.gateway.stop()
        while not gateway.gateway._lifecycle.stopped:
            try:
                answered += (await gateway.rerank(key=minted.text)).status == 200
            except aiohttp.ClientError:
                break  # it does not listen any more
        await asyncio.wait_for(asyncio.shield(gateway.task), 10)
        collecting.cancel()
        await asyncio.wait([collecting])
        await gateways.close()
    assert answered > 1
    assert api.requests() == answered
