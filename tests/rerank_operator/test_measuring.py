"""The task against gateways on real sockets; the API server is a few ModelDeployments in memory."""

import copy
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from rerank_api import backend_token, keys
from rerank_api.model_deployment import ModelDeployment
from rerank_gateway.config import Settings
from rerank_operator import load_report, measurement
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.cluster import Cluster
from rerank_operator.gateways import Gateways
from rerank_operator.measurement import Figures, Latency
from rerank_operator.measuring import Measuring
from rerank_operator.resources import Object, Resource
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MASTER, running, slice_of
from tests.rerank_operator.known_gateways import Known, number_of, served

pytestmark = pytest.mark.slow


def told(model: str = "m", *, speed: float = 1000.0, ago: float = 1.0, **fields: Any) -> Object:
    """What a gateway tells of a model that it was asked for."""
    return {
        "namespace": "team",
        "name": model,
        "replicas": [],
        "tokensPerSecond": speed,
        "measuredSecondsAgo": ago,
        "idleSeconds": 0.5,
        "latency": {"medianSeconds": 0.05, "p95Seconds": 0.2, "requests": 10, "secondsAgo": ago},
        **fields,
    }


class Objects(Cluster):
    """Holds models; counts what is asked; may refuse."""

    def __init__(self, *names: str) -> None:
        super().__init__(api=None)  # type: ignore[arg-type]  # nothing is connected
        self.models: dict[str, Object] = {
            name: {
                "metadata": {"name": name, "namespace": "team", "uid": "u", "resourceVersion": "1"},
                "spec": {"model": {"huggingFace": {"repo": "org/name"}}},
                "status": {"phase": "Ready"},
            }
            for name in names
        }
        self.refusal: Exception | None = None
        self.before_write: Any = lambda: None
        self.gets: list[str] = []
        self.writes: list[str] = []

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        assert (resource.kind, namespace) == ("ModelDeployment", "team")
        self.gets.append(name)
        return copy.deepcopy(self.models.get(name))

    async def apply_status(
        self, resource: Resource, live: Object, status: Object, *, field_manager: str = ""
    ) -> Object:
        self.before_write()
        if self.refusal is not None:
            raise self.refusal
        name = live["metadata"]["name"]
        held = self.models[name]
        if held["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "changed")
        assert field_manager == "rerank-operator/measured"
        assert set(status) == {"measured"}
        held["status"].update(copy.deepcopy(status))
        held["metadata"]["resourceVersion"] += "1"
        self.writes.append(name)
        return copy.deepcopy(held)

    def speed(self, name: str = "m") -> int | None:
        measured = ModelDeployment.parse(self.models[name]).status.measured
        return (
            None if measured is None or measured.throughput is None else measured.throughput.tokens_per_second
        )


@dataclass
class Stage:
    """Two gateways, which tell `models` each, and the task."""

    gateways: Known
    api: Objects = field(default_factory=lambda: Objects("m", "other"))
    models: list[list[Any]] = field(default_factory=lambda: [[], []])
    bodies: list[bytes | None] = field(default_factory=lambda: [None, None])

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """The operator anew: it remembers nothing."""
        self.task = Measuring(self.api, self.gateways)

    async def look(self) -> list[str]:
        """What a look wrote."""
        self.api.writes, self.api.gets = [], []
        await self.task.look()
        return self.api.writes

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/load"
        number = number_of(request)
        body = {"process": f"{number:016x}", "models": self.models[number]}
        garbage = self.bodies[number]
        return web.Response(body=orjson.dumps(body) if garbage is None else garbage)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    gateways = Known("peers", 0)
    stage = Stage(gateways)
    async with served(gateways, stage.answer):
        yield stage


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten minutes are over."""
    monkeypatch.setattr(measurement, "WRITE_INTERVAL", timedelta())


def written_ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


async def test_what_all_gateways_measured_is_written_once(stage: Stage) -> None:
    stage.models = [[told(), told("gone")], [told(speed=500.0)]]
    before = datetime.now(UTC)
    assert await stage.look() == ["m"]
    status = ModelDeployment.parse(stage.api.models["m"]).status
    assert (status.phase, stage.api.speed()) == ("Ready", 1500)
    measured = status.measured
    assert measured is not None
    assert measured.latency is not None
    figures = measured.latency
    assert (figures.median_seconds, figures.p95_seconds, figures.requests) == (0.05, 0.2, 20)
    assert before - timedelta(seconds=2) <= figures.measured_at <= datetime.now(UTC)
    stage.models[0].pop()
    for _ in range(3):
        assert await stage.look() == []
        assert stage.api.gets == []


async def test_nothing_is_asked_of_the_api_server_for_models_that_nobody_asks(
    stage: Stage, at_once: None
) -> None:
    unasked = {"namespace": "team", "name": "m", "replicas": []}
    stage.models = [[unasked, told("other", ago=3600.0)], [unasked]]
    for _ in range(3):
        assert await stage.look() == []
        assert stage.api.gets == []
    assert stage.task._memories == {}
    stage.models[0][0] = told()
    assert await stage.look() == ["m"]
    stage.models[0][0] = told(ago=3600.0, speed=9.0)  # whatever old figures say
    for _ in range(3):
        assert await stage.look() == []
        assert stage.api.gets == []
    assert stage.task._memories == {}
    assert stage.api.speed() == 1000


async def test_what_moved_is_written_when_the_last_write_is_ten_minutes_ago(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.models[0] = [told()]
    await stage.look()
    stage.models[0] = [told(speed=2000.0)]
    assert await stage.look() == []
    stage.models[0] = [told(ago=3600.0)]  # nobody asks any more: what was seen last is still to be told
    assert await stage.look() == []
    monkeypatch.setattr(measurement, "WRITE_INTERVAL", timedelta())
    assert await stage.look() == ["m"]
    assert stage.api.speed() == 2000
    assert await stage.look() == []


async def test_another_leader_goes_on_from_what_stands_in_the_status(stage: Stage) -> None:
    stage.models[0] = [told()]
    await stage.look()
    stage.models[0] = [told(speed=2000.0)]
    stage.restart()
    for _ in range(2):
        assert await stage.look() == []
    assert stage.api.gets == []  # the model is read once
    measured = stage.api.models["m"]["status"]["measured"]
    for part in measured.values():
        part["measuredAt"] = written_ago(601)
    stage.restart()
    assert await stage.look() == ["m"]
    assert stage.api.speed() == 2000


async def test_a_figure_of_which_there_is_nothing_new_stays(stage: Stage, at_once: None) -> None:
    stage.models[0] = [told()]
    await stage.look()
    stage.models[0] = [told(tokensPerSecond=None, measuredSecondsAgo=None)]
    stage.models[0][0]["latency"]["medianSeconds"] = 0.1
    stage.restart()
    assert await stage.look() == ["m"]
    measured = stage.api.models["m"]["status"]["measured"]
    assert (measured["throughput"]["tokensPerSecond"], measured["latency"]["medianSeconds"]) == (1000, 0.1)


async def test_a_conflict_is_tried_again_onto_what_is_there_then(stage: Stage) -> None:
    def changed() -> None:
        stage.api.models["m"]["metadata"]["resourceVersion"] += "x"
        stage.api.before_write = lambda: None

    stage.models[0] = [told(), told("other")]
    stage.api.before_write = changed
    with capture_logs() as logs:
        assert await stage.look() == ["other"]
        assert await stage.look() == ["m"]
    assert logs == []


@pytest.mark.parametrize(
    ("refusal", "asked"),
    [
        (ApiError(403, "Forbidden", "no"), ["m", "other"]),
        (ApiError(500, "InternalError", "a webhook of somebody else"), ["m", "other"]),
        (ApiError(0, "Unreachable", "gone"), ["m"]),
        (NotLeaderError(), ["m"]),
    ],
)
async def test_what_could_not_be_written_is_written_later(
    stage: Stage, refusal: Exception, asked: list[str]
) -> None:
    stage.models[0] = [told(), told("other")]
    stage.api.refusal = refusal
    with capture_logs() as logs:
        assert await stage.look() == []
    assert stage.api.gets == asked
    assert [entry["log_level"] for entry in logs] == ["warning"] * len(asked)
    stage.api.refusal = None
    assert await stage.look() == ["m", "other"]


async def test_what_was_measured_is_not_told_of_a_model_made_anew(stage: Stage, at_once: None) -> None:
    stage.models[0] = [told()]
    await stage.look()
    stage.api.models["m"] = copy.deepcopy(Objects("m").models["m"])
    stage.api.models["m"]["metadata"]["uid"] = "another"
    stage.models[0] = [told(speed=2000.0)]
    assert await stage.look() == []
    assert stage.api.speed() is None
    stage.models[0] = [told(speed=3000.0)]
    assert await stage.look() == ["m"]
    assert stage.api.speed() == 3000


async def test_a_model_made_anew_is_measured_though_it_is_as_fast(stage: Stage) -> None:
    stage.models[0] = [told()]
    assert await stage.look() == ["m"]
    stage.models[0] = []  # gone, and made anew
    assert await stage.look() == []
    stage.api.models["m"] = copy.deepcopy(Objects("m").models["m"])
    stage.api.models["m"]["metadata"]["uid"] = "another"
    stage.models[0] = [told()]
    assert await stage.look() == ["m"]


async def test_where_one_gateway_is_silent_nothing_is_forgotten(stage: Stage) -> None:
    stage.models[0] = [told()]
    assert await stage.look() == ["m"]
    stage.bodies[1] = b""
    assert await stage.look() == []
    stage.bodies[1] = None
    assert await stage.look() == []
    assert stage.api.gets == []


async def test_a_model_that_cannot_be_read_holds_up_nobody(stage: Stage) -> None:
    stage.api.models["m"]["spec"] = {}
    stage.models[0] = [told(), told("other")]
    with capture_logs() as logs:
        assert await stage.look() == ["other"]
    assert [entry["log_level"] for entry in logs] == ["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        orjson.dumps({"process": "a" * 16, "models": [told("../../m")]}),
        orjson.dumps({"process": "a" * 16, "models": [told(latency=told()["latency"] | {"requests": 0})]}),
        orjson.dumps({"process": "a" * 16, "models": [told(measuredSecondsAgo=-1.0)]}),
    ],
)
async def test_without_one_gateway_nothing_is_taken_for_the_whole(stage: Stage, body: bytes) -> None:
    stage.models = [[told()], [told()]]
    stage.bodies[0] = body
    assert await stage.look() == []
    assert stage.api.gets == []
    stage.bodies[0] = None
    assert await stage.look() == ["m"]
    assert stage.api.speed() == 2000


def test_a_gateway_of_an_earlier_version_tells_no_latency() -> None:
    old = told()
    del old["latency"]
    unasked = {"namespace": "team", "name": "unasked", "replicas": []}
    page = orjson.dumps({"process": "a" * 16, "models": [told("new"), old, unasked]})
    assert load_report.figures(page) == {
        ("team", "new"): Figures(1000.0, 1.0, Latency(0.05, 0.2, 10, 1.0)),
        ("team", "m"): Figures(1000.0, 1.0, None),
    }


async def test_what_a_real_gateway_ranks_is_measured() -> None:
    minted = keys.mint()
    async with (
        FakeEngine(token=backend_token.token(MASTER, "team")) as engine,
        running(Settings(drain_seconds=0)) as gateway,
    ):
        gateway.source.put(objects.api_key(minted, namespace="team"))
        gateway.source.put(objects.model(namespace="team"), *slice_of([engine], namespace="team"))
        api = Objects("minilm")
        gateways = Gateways("127.0.0.1", int(gateway.internal_url.rsplit(":", 1)[1]))
        task = Measuring(api, gateways)
        await task.look()
        assert api.gets == []
        for _ in range(3):
            assert (await gateway.rerank(key=minted.text)).status == 200
        await task.look()
        await gateways.close()
    latency = api.models["minilm"]["status"]["measured"]["latency"]
    assert latency["requests"] == 3
    assert 0 < latency["medianSeconds"] <= latency["p95Seconds"] < 5
