"""The loop against gateways on real sockets; the API server is one ModelDeployment in memory."""

import copy
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import structlog
from aiohttp import web

from rerank_api.model_deployment import ModelDeployment
from rerank_operator import load_report
from rerank_operator.api_error import ApiError
from rerank_operator.autoscaler import Load
from rerank_operator.autoscaling import Autoscaled, Autoscaling
from rerank_operator.cluster import Cluster
from rerank_operator.events import Recorder
from rerank_operator.health import Metrics
from rerank_operator.resources import Object, Resource
from tests.rerank_operator.known_gateways import Known, number_of, served

SCALING: Object = {"minReplicas": 0, "maxReplicas": 4, "scaleDownDelaySeconds": 0, "idleSecondsToZero": 60}


def told(model: str = "m", **fields: Any) -> Object:
    """What a gateway tells of a model that it was asked for."""
    counts = dict.fromkeys(("queuedRequests", "queuedDocuments", "queuedTokens", "runningTokens"), 0)
    rest = {"heldRequests": 0, "readTokens": 0, "tokensPerSecond": 1000.0, "measuredSecondsAgo": 1.0}
    return {
        "namespace": "team",
        "name": model,
        "replicas": [],
        **counts,
        **rest,
        "idleSeconds": 0.5,
        **fields,
    }


class Objects(Cluster):
    """Holds one model, counts what is asked, may refuse."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(api=None)  # type: ignore[arg-type]  # nothing is connected
        self.model: Object = {
            "metadata": {"name": "m", "namespace": "team", "uid": "u", "resourceVersion": "1"},
            "spec": {"model": {"huggingFace": {"repo": "org/name"}}, "autoscaling": SCALING, **spec},
            "status": {"phase": "Ready"},
        }
        self.refusal: Exception | None = None
        self.gets = 0
        self.writes: list[Object] = []
        self.events: list[Object] = []

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        self.gets += 1
        return copy.deepcopy(self.model)

    async def apply_status(
        self, resource: Resource, live: Object, status: Object, *, field_manager: str = ""
    ) -> Object:
        assert field_manager == "rerank-operator/autoscaling"
        if self.refusal is not None:
            raise self.refusal
        self.model["status"].pop("autoscaling", None)
        self.model["status"] |= copy.deepcopy(status)
        self.model["metadata"]["resourceVersion"] += "1"
        self.writes.append(status)
        return copy.deepcopy(self.model)

    async def create_event(self, event: Object) -> None:
        self.events.append(event)

    @property
    def replicas(self) -> int:
        return ModelDeployment.parse(self.model).wanted_replicas


@dataclass
class Stage:
    """Two gateways, which tell `models` each, and the loop."""

    gateways: Known
    api: Objects = field(default_factory=Objects)
    models: list[list[Any]] = field(default_factory=lambda: [[], []])
    bodies: list[bytes | None] = field(default_factory=lambda: [None, None])
    asked: int = 0
    woken: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """The operator anew: it remembers nothing."""
        self.autoscaled = Autoscaled()
        self.recorder = Recorder(api=self.api, instance="i")
        self.loop = Autoscaling(
            api=self.api,
            gateways=self.gateways,
            recorder=self.recorder,
            autoscaled=self.autoscaled,
            metrics=self.metrics,
            wake=lambda _, name: self.woken.append(name),
        )

    async def look(self, *, ready: int = 1) -> bool:
        """The reconciler looks at the model, and then the loop."""
        self.autoscaled.note(ModelDeployment.parse(self.api.model), ready=ready)
        busy = await self.loop.look()
        await self.recorder.post()
        return busy

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/load"
        self.asked += 1
        number = number_of(request)
        body = {"process": f"{number:016x}", "models": self.models[number]}
        garbage = self.bodies[number]
        return web.Response(body=orjson.dumps(body) if garbage is None else garbage)

    def notes(self) -> list[tuple[str, str]]:
        return [(event["reason"], event["note"]) for event in self.api.events]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    gateways = Known("peers", 0)
    stage = Stage(gateways)
    async with served(gateways, stage.answer):
        yield stage


async def test_it_starts_with_what_the_spec_says_and_then_writes_nothing(stage: Stage) -> None:
    stage.api.model["spec"]["replicas"] = 9
    assert stage.api.replicas == 4
    await stage.look()
    (written,) = stage.api.writes
    assert (written["autoscaling"]["replicas"], written["autoscaling"]["reason"]) == (4, "Started")
    stage.models = [[told(idleSeconds=5)], [told("another")]]
    gets = stage.api.gets
    for _ in range(3):
        await stage.look(ready=0)
    assert (len(stage.api.writes), stage.api.gets, stage.api.events) == (1, gets, [])


async def test_the_gateways_together_say_how_much_waits(stage: Stage) -> None:
    await stage.look()
    waits = told(queuedTokens=1600, tokensPerSecond=500.0)
    stage.models = [[waits], [told("another"), waits]]
    stage.api.model["status"]["autoscaling"]["lastScaleTime"] = "2026-01-01T00:00:00Z"
    assert await stage.look() is True
    status = stage.api.model["status"]
    assert status["autoscaling"] | {"lastScaleTime": ""} == {
        "replicas": 4,
        "reason": "QueueTooLong",
        "message": "3.2 s of work queued for 1 replica; the target is 1 s",
        "lastScaleTime": "",
    }
    assert status["autoscaling"]["lastScaleTime"] > "2026-01-02"
    assert status["phase"] == "Ready"
    assert stage.woken == ["m"]
    assert stage.notes() == [
        ("ScaledUp", "replicas from 1 to 4: 3.2 s of work queued for 1 replica; the target is 1 s")
    ]


async def test_from_zero_with_one_gateway_silent(stage: Stage) -> None:
    stage.api.model["spec"]["replicas"] = 0
    assert await stage.look(ready=0) is True  # soon again: somebody may ask
    stage.models[1] = [told(heldRequests=1)]
    stage.bodies[0] = b"garbage"
    await stage.look(ready=0)
    assert stage.api.replicas == 1
    assert stage.notes() == [("ScaledUp", "replicas from 0 to 1: a request came")]


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b'{"process": "0", "models": []}'])
async def test_a_gateway_that_talks_nonsense_is_silent(stage: Stage, body: bytes) -> None:
    stage.api.model["spec"]["replicas"] = 3
    stage.bodies[0] = body
    for _ in range(3):
        await stage.look()
    assert stage.api.replicas == 3
    stage.bodies[0] = None
    await stage.look()
    assert stage.api.replicas == 1  # nobody asks, and there is no delay


async def test_a_silent_gateway_is_named_once_and_counted(stage: Stage) -> None:
    def silent() -> float | None:
        return stage.metrics.registry.get_sample_value("rerank_operator_gateways_silent")

    with structlog.testing.capture_logs() as logs:
        await stage.look()
        assert (silent(), logs) == (0, [])
        stage.bodies[1] = b""
        for _ in range(3):
            await stage.look()
        assert silent() == 1
        stage.bodies[1] = None
        await stage.look()
        assert silent() == 0
    assert [(line["log_level"], line.get("addresses")) for line in logs] == [
        ("warning", ["127.0.0.3"]),
        ("info", None),
    ]


async def test_no_gateway_at_all_is_no_word_of_idleness(stage: Stage) -> None:
    stage.api.model["spec"]["replicas"] = 3
    stage.gateways.known = frozenset()
    for _ in range(3):
        await stage.look()
    assert stage.api.replicas == 3


async def test_a_conflict_is_tried_again_from_what_is_there_then(stage: Stage) -> None:
    await stage.look()
    stage.api.model["status"]["autoscaling"]["lastScaleTime"] = "2026-01-01T00:00:00Z"
    stage.models[0] = [told(queuedTokens=2000)]
    stage.api.refusal = ApiError(409, "Conflict", "changed")
    assert await stage.look() is True
    assert (stage.api.replicas, stage.api.events, stage.woken) == (1, [], [])
    stage.api.refusal = None
    await stage.look()
    assert stage.api.replicas == 2


async def test_a_decision_about_another_spec_is_not_written(stage: Stage) -> None:
    await stage.look()
    stage.api.model["status"]["autoscaling"]["lastScaleTime"] = "2026-01-01T00:00:00Z"
    stage.autoscaled.note(ModelDeployment.parse(stage.api.model), ready=1)
    stage.models[0] = [told(queuedTokens=9000)]
    stage.api.model["spec"]["autoscaling"] = {"minReplicas": 1, "maxReplicas": 1}
    await stage.loop.look()
    assert len(stage.api.writes) == 1


async def test_who_changes_replicas_in_vain_is_told(stage: Stage) -> None:
    await stage.look()
    stage.api.model["spec"]["replicas"] = 3
    await stage.look()
    assert stage.api.replicas == 1
    ((reason, note),) = stage.notes()
    assert reason == "ReplicasNotHeeded"
    assert note.startswith("spec.replicas was set to 3, but spec.autoscaling decides how many there are:")
    await stage.look()
    assert len(stage.api.events) == 1


async def test_without_autoscaling_nothing_of_it_stays(stage: Stage) -> None:
    await stage.look()
    del stage.api.model["spec"]["autoscaling"]
    stage.api.model["spec"]["replicas"] = 2
    await stage.look()
    assert stage.api.model["status"] == {"phase": "Ready"}
    assert stage.api.replicas == 2
    assert stage.autoscaled.models == {}
    asked = stage.asked
    assert await stage.look() is False
    assert stage.asked == asked  # nobody to ask for


async def test_a_model_that_was_made_anew_is_left_alone(stage: Stage) -> None:
    await stage.look()
    stage.api.model["status"]["autoscaling"]["lastScaleTime"] = "2026-01-01T00:00:00Z"
    stage.autoscaled.note(ModelDeployment.parse(stage.api.model), ready=1)
    stage.models[0] = [told(queuedTokens=9000)]
    stage.api.model["metadata"]["uid"] = "another"
    await stage.loop.look()
    assert len(stage.api.writes) == 1


def test_a_gateway_tells_what_the_loop_reads() -> None:
    unasked = {"namespace": "team", "name": "unasked", "replicas": []}
    page = {"process": "a" * 16, "models": [told(queuedTokens=7, readTokens=9), told("other"), unasked]}
    found = load_report.loads(orjson.dumps(page), {("team", "m"), ("team", "unasked")})
    assert found == {("team", "m"): Load("a" * 16, 7, 0, 0, 9, 1000.0, 1.0, 0.5)}
