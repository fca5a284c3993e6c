"""One look, against a few objects in memory: what is asked, what is written, and that the status comes last.

The API server's own behaviour is not played here: tests/apiserver has the real one.
"""

from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rerank_api.model_names import Rank
from rerank_operator.api_error import ApiError
from rerank_operator.autoscaling import Autoscaled
from rerank_operator.catalog import CatalogModels, Users
from rerank_operator.claims import Claims
from rerank_operator.cluster import Cluster
from rerank_operator.config import Settings
from rerank_operator.events import Recorder
from rerank_operator.listed import Listed
from rerank_operator.model_metrics import ModelMetrics
from rerank_operator.model_reconciler import UNTOLD_SECONDS, ModelReconciler
from rerank_operator.name_claims import known_names
from rerank_operator.observe import Nodes, Reports
from rerank_operator.pod_status import Report
from rerank_operator.policy import Policy
from rerank_operator.resources import Object, Resource
from tests.rerank_operator.samples import COMMIT, report
from tests.rerank_operator.test_catalog import entry

SETTINGS = Settings(
    namespace="rerank-system",
    pod_name="rerank-operator-0",
    watch_namespaces=(),
    runtime_image_cpu="cpu",
    runtime_image_cuda="cuda",
    image_pull_policy="IfNotPresent",
    hub_endpoint=None,
    gateway_url="http://g",
    backend_token_file=Path("/master"),
    backend_token_secret="s",
    lease_name="l",
)


class Objects(Cluster):
    """Holds objects by kind; remembers writes in their order; may refuse a kind."""

    def __init__(self, *objects: Object, pods: list[Object] | None = None) -> None:
        super().__init__(api=None)  # type: ignore[arg-type]  # nothing is connected
        self.objects = {body["kind"]: body for body in objects}
        self.pods = pods or []
        self.refusals: dict[str, ApiError] = {}
        self.gets: list[str] = []
        self.reads: list[str] = []
        self.writes: list[str] = []
        self.applied: dict[str, Object] = {}
        self.status: Object = {}
        self.is_old = False
        self.is_overtaken = False
        self.confirmed: list[str] = []

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        self.gets.append(resource.kind)
        found = self.objects.get(resource.kind)
        if resource.kind == "CatalogModel" and found is not None and found["metadata"]["name"] != name:
            return None
        return found

    async def warnings(self, namespace: str, uid: str) -> list[Object]:
        self.reads.append(f"warnings of {uid}")
        return [{"reason": "FailedMount", "note": "no such volume"}]

    async def list(self, resource: Resource, namespace: str | None, *, labels: str = "") -> list[Object]:
        assert labels == "rerank.dev/model=minilm"
        return self.pods

    async def pages(
        self, resource: Resource, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Object]:
        if resource.kind == "Node":
            self.reads.append("nodes")
            if resource.kind in self.refusals:
                raise self.refusals[resource.kind]
        if resource.kind in self.objects:
            yield self.objects[resource.kind]

    async def apply(self, intent: Object, *, resource_version: str | None) -> Object:
        if intent["kind"] in self.refusals:
            raise self.refusals[intent["kind"]]
        there = self.objects.get(intent["kind"])
        if there is not None and resource_version is None:
            raise ApiError(409, "Conflict", "there is one")
        self.writes.append(intent["kind"])
        self.applied[intent["kind"]] = intent
        return intent

    async def confirm(self, _: Resource, live: Object) -> None:
        self.confirmed.append(live["metadata"]["resourceVersion"])
        if self.is_overtaken:
            raise ApiError(409, "Conflict", "it has changed")

    async def rehearse(self, intent: Object, *, resource_version: str | None) -> Object:
        if self.is_old:
            intent = deepcopy(intent)
            spec = intent["spec"]["template"]["spec"]
            spec["volumes"] = [volume for volume in spec["volumes"] if "image" not in volume]
            spec.pop("resourceClaims", None)
        return intent

    async def apply_status(
        self, resource: Resource, live: Object, status: Object, *, field_manager: str = ""
    ) -> Object:
        self.writes.append("status")
        self.status = status
        return live

    async def delete(self, live: Object) -> None:
        what = f"delete {live['kind']}"
        if what in self.refusals:
            raise self.refusals[what]
        self.writes.append(what)

    async def create_event(self, event: Object) -> None:
        self.writes.append(f"event {event['reason']}")


class Pods:
    """What the pods answer."""

    def __init__(self, answer: Report | None = None) -> None:
        self.answer = answer

    async def ask(self, ip: str) -> Report | None:
        return self.answer


def resource(**changes: Any) -> Object:
    return {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": "minilm",
            "namespace": "team",
            "uid": "u",
            "generation": 1,
            "resourceVersion": "1",
            **changes.pop("metadata", {}),
        },
        "spec": {"model": {"huggingFace": {"repo": "org/name"}}, **changes},
        "status": {"observedGeneration": 1},
    }


def ready_pod(template: str = "") -> Object:
    return {
        "metadata": {
            "name": "p",
            "uid": "p",
            "annotations": {"rerank.dev/template": template},
            "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "rerank-minilm-1"}],
        },
        "spec": {"initContainers": [{"name": "fetch"}]},
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "initContainerStatuses": [{"name": "fetch", "state": {"terminated": {"exitCode": 0}}}],
            "containerStatuses": [{"name": "serve", "state": {"running": {}}}],
        },
    }


def reconciler(
    api: Objects,
    answer: Report | None = None,
    *,
    settings: Settings = SETTINGS,
    metrics: ModelMetrics | None = None,
) -> ModelReconciler:
    listed = Listed(api, ())
    return ModelReconciler(
        api=api,
        listed=listed,
        reports=Reports(asker=Pods(answer)),
        recorder=Recorder(api=api, instance="i"),
        settings=settings,
        users=Users(),
        entries=CatalogModels(api),
        metrics=metrics if metrics is not None else ModelMetrics(),
        autoscaled=Autoscaled(),
        claims=Claims(known_names(listed)),
        wake=lambda *_: None,
        nodes=Nodes(api=api, readable=not settings.watch_namespaces),
        backend_master=b"m" * 32,
    )


async def look(api: Objects, answer: Report | None = None) -> float | None:
    subject = reconciler(api, answer)
    again = await subject.reconcile("team", "minilm")
    await subject.recorder.post()
    return again


ALL = ["ConfigMap", "Service", "NetworkPolicy", "Deployment", "status"]
"""What the first look at a model of one replica writes, in its order."""


async def test_children_first_then_the_status() -> None:
    api = Objects(resource())
    assert await look(api) is None
    assert api.writes == ALL


async def test_what_others_write_into_the_status_is_left_to_them() -> None:
    first = Objects(resource())
    await look(first)
    scaled = {"replicas": 1, "reason": "Started"}
    measured = {"throughput": {"tokensPerSecond": 9, "measuredAt": "2026-11-29T12:00:00Z"}}
    again = Objects(resource() | {"status": first.status | {"autoscaling": scaled, "measured": measured}})
    await look(again)
    assert "status" not in again.writes


@pytest.mark.parametrize("several", [{"replicas": 2}, {"autoscaling": {"maxReplicas": 2}}])
async def test_a_model_that_can_have_several_replicas_has_a_budget_before_they_run(several: Object) -> None:
    api = Objects(resource(**several))
    await look(api)
    assert api.writes == [*ALL[:2], "PodDisruptionBudget", *ALL[2:]]


def new_resource() -> Object:
    """One that no look was at yet."""
    return {key: part for key, part in resource().items() if key != "status"}


async def test_nothing_is_looked_for_that_a_new_one_cannot_have() -> None:
    api = Objects(new_resource())
    assert await look(api) is None
    assert api.gets == [], "it was listed"
    assert api.writes == ALL


async def test_what_a_new_one_has_all_the_same_is_found() -> None:
    """An operator was killed before it wrote the status."""
    first = Objects(new_resource())
    await look(first)
    made = first.applied["ConfigMap"]
    made["metadata"]["resourceVersion"] = "7"
    api = Objects(new_resource(), made)
    await look(api)
    assert api.writes == ALL[1:]


async def test_a_model_that_was_overtaken_changes_nothing_that_is_there() -> None:
    """Its children may be those of a newer spec."""
    first = Objects(resource())
    await look(first)
    deployment = first.applied["Deployment"]
    deployment["metadata"]["resourceVersion"] = "7"
    api = Objects(resource(replicas=0), deployment)
    api.is_overtaken = True
    with pytest.raises(ApiError):
        await look(api)
    assert api.writes == []
    assert api.confirmed == ["1"]
    api.is_overtaken = False
    await look(api)
    assert "Deployment" in api.writes


PINNED = {"model": {"huggingFace": {"repo": "org/name", "revision": COMMIT}}}


THEIRS: Object = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "rerank-minilm", "namespace": "team", "resourceVersion": "7"},
}


async def test_a_model_whose_commit_is_known_needs_no_config_map() -> None:
    api = Objects(resource(**PINNED), THEIRS)
    await look(api)
    assert api.writes == [kind for kind in ALL if kind != "ConfigMap"]


async def test_a_model_of_a_branch_starts_with_no_config_map_of_somebody_else() -> None:
    api = Objects(resource(), THEIRS)
    await look(api)
    assert api.writes == ["status", "event NameTaken"]


async def test_a_config_map_stays_when_it_is_not_needed_any_more() -> None:
    first = Objects(resource())
    await look(first)
    kept = first.applied["ConfigMap"]
    kept["metadata"]["resourceVersion"] = "7"
    kept["data"] = {"0123456789abcdef": COMMIT}
    kept["metadata"]["annotations"]["rerank.dev/applied"] = "with the pin"
    api = Objects(resource(**PINNED), kept)
    await look(api)
    assert api.writes == ALL
    assert api.applied["ConfigMap"]["data"] == {}


@pytest.mark.parametrize("body", [None, resource(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})])
async def test_nothing_is_done_for_what_goes(body: Object | None) -> None:
    api = Objects(*([body] if body else []))
    assert await look(api) is None
    assert api.writes == []


@pytest.mark.parametrize("status", [422, 403, 500])
async def test_a_refusal_is_told_and_tried_again(status: int) -> None:
    api = Objects(resource())
    api.refusals["Deployment"] = ApiError(status, "Refused", "because")
    assert await look(api) == 15
    assert api.writes == [
        "ConfigMap",
        "Service",
        "NetworkPolicy",
        "status",
        "event DeploymentRefused",
    ]
    assert api.status["phase"] == "Failed"
    assert api.status["message"] == "Deployment rerank-minilm was refused: because"


@pytest.mark.parametrize("status", [0, 409, 429, 503])
async def test_what_passes_by_itself_is_left_to_the_queue(status: int) -> None:
    api = Objects(resource())
    api.refusals["Service"] = ApiError(status, "Later", "")
    with pytest.raises(ApiError):
        await look(api)
    assert api.writes == ["ConfigMap"]


async def test_a_resource_of_another_version_is_told() -> None:
    api = Objects(resource(novelty=True))
    assert await look(api) is None
    assert api.writes == ["status"]
    assert api.status["phase"] == "Failed"
    assert "novelty" in api.status["message"]
    (ready,) = api.status["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "UnreadableSpec")


async def test_a_replica_that_serves_without_telling_is_asked_again() -> None:
    api = Objects(resource(), pods=[ready_pod()])
    assert await look(api) == 15
    assert await look(api, report()) is None


async def pod_at(
    since: datetime, *, scheduled: bool, message: str = "", of: tuple[Object, ...] = ()
) -> Object:
    """A pod of the newest revision that no container of was started yet. `of`: its model and its entry."""
    api = Objects(*(of or (resource(),)))
    await look(api)
    template = api.applied["Deployment"]["spec"]["template"]
    condition = {
        "type": "PodScheduled",
        "status": str(scheduled),
        "message": message,
        "lastTransitionTime": since.isoformat(),
    }
    pod = ready_pod(template["metadata"]["annotations"]["rerank.dev/template"])
    return {**pod, "status": {"conditions": [condition]}}


async def test_nodes_are_looked_at_where_a_replica_finds_none() -> None:
    waiting = await pod_at(datetime.now(UTC), scheduled=False, message="0/1 nodes are available.")
    node = {"kind": "Node", "metadata": {"name": "n1"}}
    api = Objects(resource(), node, pods=[waiting])
    await look(api)
    assert api.reads == ["nodes"]
    assert "no node offers nvidia.com/gpu" in api.status["message"]

    namespaced = replace(SETTINGS, watch_namespaces=("team",))
    api = Objects(resource(), node, pods=[waiting])
    await reconciler(api, settings=namespaced).reconcile("team", "minilm")
    assert api.reads == []
    assert api.status["message"] == "no node can take a replica: 0/1 nodes are available."


async def test_the_nodes_are_read_once_for_many() -> None:
    waiting = await pod_at(datetime.now(UTC), scheduled=False, message="0/1 nodes are available.")
    api = Objects(resource(), pods=[waiting])
    subject = reconciler(api)
    for _ in range(3):
        await subject.reconcile("team", "minilm")
    assert api.reads == ["nodes"]


@pytest.mark.parametrize(("age", "again"), [(0.5, 2), (4, 6.5), (60, None)])
async def test_a_verdict_is_explained_with_nodes_that_are_newer(age: float, again: float | None) -> None:
    since = datetime.now(UTC) - timedelta(seconds=age)
    waiting = await pod_at(since, scheduled=False, message="0/1 nodes are available.")
    seconds = await look(Objects(resource(), pods=[waiting]))
    assert seconds == (again and pytest.approx(again, abs=0.5))


USES: Object = {"model": {"catalog": "qwen3"}}
SMALL_GPU: Object = {
    "kind": "Node",
    "metadata": {"name": "n1", "labels": {"nvidia.com/gpu.memory": "2048"}},
    "status": {"allocatable": {"nvidia.com/gpu": "1"}},
}


async def loading() -> Objects:
    """A model that took 4 GiB before, whose replica is on node n1 and loads."""
    pod = await pod_at(datetime.now(UTC), scheduled=True)
    known = {"repo": "org/name", "memoryBytes": 4 * 2**30}
    body = {**resource(), "status": {"observedGeneration": 1, "model": known}}
    return Objects(body, SMALL_GPU, pods=[{**pod, "spec": {**pod["spec"], "nodeName": "n1"}}])


@pytest.mark.parametrize(
    ("memory", "reason"), [("4 GiB", "GpuMayBeTooSmall"), ("1.5 GiB", "Scheduled"), ("4 GB", "Scheduled")]
)
async def test_what_an_entry_takes_is_compared_with_the_gpu_at_once(memory: str, reason: str) -> None:
    """Before a container has begun; what is no number of GiB tells nothing."""
    of = (resource(**USES), entry("qwen3", memory=memory))
    pod = await pod_at(datetime.now(UTC), scheduled=True, of=of)
    api = Objects(*of, SMALL_GPU, pods=[{**pod, "spec": {**pod["spec"], "nodeName": "n1"}}])
    await look(api)
    (told,) = [c for c in api.status["conditions"] if c["type"] == "Scheduled"]
    assert (told["status"], told["reason"]) == ("True", reason)
    assert ("of n1 has 2.0 GiB, and the model takes about 4.0 GiB" in told["message"]) is (memory == "4 GiB")


async def test_what_a_replica_finds_to_take_is_compared_in_the_same_look() -> None:
    """So that the status that tells of it is not written twice."""
    api = await loading()
    del api.objects["ModelDeployment"]["status"]["model"]
    (pod,) = api.pods
    pod["status"]["podIP"] = "10.0.0.1"
    pod["status"]["containerStatuses"] = [{"name": "serve", "state": {"running": {}}}]
    pod["status"]["initContainerStatuses"] = [{"name": "fetch", "state": {"terminated": {"exitCode": 0}}}]
    await look(api, report("Starting", model={"memoryBytes": 4 * 2**30}))
    (told,) = [c for c in api.status["conditions"] if c["type"] == "Scheduled"]
    assert told["reason"] == "GpuMayBeTooSmall"
    assert api.status["model"]["memoryBytes"] == 4 * 2**30


async def test_the_memory_of_what_nobody_knows_is_not_guessed() -> None:
    """A repository of one's own that served nowhere yet: its first replica tells."""
    api = await loading()
    del api.objects["ModelDeployment"]["status"]["model"]
    await look(api)
    (told,) = [c for c in api.status["conditions"] if c["type"] == "Scheduled"]
    assert told["reason"] == "Scheduled"
    assert api.reads == []


async def test_the_nodes_of_replicas_that_load_may_be_those_of_minutes_ago() -> None:
    api = await loading()
    subject = reconciler(api)
    clock = iter((0, 60, 119, 121, 121, 124, 124))  # asked once more where the nodes are read anew
    subject.nodes.clock = lambda: next(clock)
    for reads in (1, 1, 1, 2):
        await subject.reconcile("team", "minilm")
        assert api.reads == ["nodes"] * reads
        assert "it may not fit" in str(api.status["conditions"])

    waits = await pod_at(datetime.now(UTC), scheduled=False, message="0/1 nodes are available.")
    api.pods.append(waits)
    await subject.reconcile("team", "minilm")
    assert api.reads == ["nodes"] * 3, "what it waits for may be there since"


async def test_nodes_that_may_not_be_read_keep_no_status_back() -> None:
    api = await loading()
    api.refusals["Node"] = ApiError(403, "Forbidden", "nodes is forbidden")
    await look(api)
    assert api.status["phase"] == "Pending"
    api.refusals["Node"] = ApiError(500, "InternalError", "")
    with pytest.raises(ApiError):
        await look(api)


@pytest.mark.parametrize(("minutes", "asked"), [(0, False), (1, True)])
async def test_events_are_asked_for_where_a_node_takes_long(minutes: int, asked: bool) -> None:
    slow = await pod_at(datetime.now(UTC) - timedelta(minutes=minutes), scheduled=True)
    api = Objects(resource(), pods=[slow])
    assert await look(api) == 15
    assert api.reads == (["warnings of p"] if asked else [])
    assert ("no such volume" in api.status["message"]) is asked


def left_over(kind: str) -> Object:
    """A child of the model from when it was wanted."""
    metadata = {"name": "rerank-minilm", "namespace": "team", "ownerReferences": [{"uid": "u"}]}
    return {"kind": kind, "metadata": metadata}


async def test_the_budget_of_a_model_that_shrinks_goes_after_the_replicas_and_before_the_status() -> None:
    api = Objects(resource(), left_over("PodDisruptionBudget"))
    await look(api)
    assert api.writes == [*ALL[:-1], "delete PodDisruptionBudget", "status"]
    assert api.confirmed == ["1"]


@pytest.mark.parametrize("status", [422, 403, 500])
async def test_a_removal_that_is_refused_is_told_and_holds_up_nothing(status: int) -> None:
    api = Objects(resource(), left_over("PodDisruptionBudget"))
    api.refusals["delete PodDisruptionBudget"] = ApiError(status, "Refused", "because")
    assert await look(api) is None
    assert api.writes == [*ALL, "event PodDisruptionBudgetLeft"]
    assert "PodDisruptionBudget" not in api.status["message"]


@pytest.mark.parametrize("status", [0, 404, 409])
async def test_a_removal_that_comes_too_late_is_left_to_the_queue(status: int) -> None:
    """The next look finds what there is then."""
    api = Objects(resource(), left_over("PodDisruptionBudget"))
    api.refusals["delete PodDisruptionBudget"] = ApiError(status, "Later", "")
    with pytest.raises(ApiError):
        await look(api)
    assert "status" not in api.writes
    del api.objects["PodDisruptionBudget"]
    assert await look(api) is None


async def test_a_network_policy_that_is_not_wanted_any_more_goes() -> None:
    api = Objects(resource(), left_over("NetworkPolicy"))
    await reconciler(api, settings=replace(SETTINGS, network_policies=False)).reconcile("team", "minilm")
    assert "delete NetworkPolicy" in api.writes
    assert "NetworkPolicy" not in api.writes


async def test_the_master_is_in_no_representation() -> None:
    assert "mmmm" not in repr(reconciler(Objects()))


def arguments(api: Objects, kind: str = "containers") -> list[str]:
    (container,) = api.applied["Deployment"]["spec"]["template"]["spec"][kind]
    found: list[str] = container["args"]
    return found


async def test_a_catalog_entry_and_own_fields_come_together() -> None:
    defaults = {
        "resources": {"gpu": {"count": 0}, "memory": "12Gi"},
        "scoring": {"instruction": "Find it", "truncation": {"maxTokensPerQuery": 64}},
    }
    found = entry("qwen3", defaults=defaults)
    found["spec"]["source"]["huggingFace"]["file"] = "*.gguf"
    own = {"truncation": {"maxTokensPerDocument": 512}}
    api = Objects(resource(**USES, resources={"memory": "9Gi"}, scoring=own), found)
    assert await look(api) is None
    assert "--repo=org/entry" in arguments(api, "initContainers")
    assert "--file=*.gguf" in arguments(api, "initContainers")
    assert {
        "--instruction=Find it",
        "--max-tokens-per-query=64",
        "--max-tokens-per-document=512",
    } <= set(arguments(api))
    (serve,) = api.applied["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert serve["resources"]["limits"] == {"memory": "9Gi"}
    assert api.status["model"] == {"catalog": "qwen3", "repo": "org/entry"}
    assert api.status["effective"]["scoring"]["truncation"] == {
        "maxTokensPerDocument": 512,
        "maxTokensPerQuery": 64,
        "onOverflow": "Truncate",
    }


async def test_the_repository_of_an_entry_is_claimed_at_once() -> None:
    """The status that tells of it is an own write: its event asks for no second look."""
    api = Objects(resource(**USES), entry("qwen3"))
    its = reconciler(api)
    its.claims.note(("team", "other"), {("team", "org/entry"): (Rank.SHARED_ALIAS, 0.0, ("team", "other"))})
    await its.reconcile("team", "minilm")
    assert its.claims.lost(("team", "other")) == {("team", "org/entry"): ("team", "minilm")}


async def test_an_absent_entry_is_told_and_looked_for_again() -> None:
    api = Objects(resource(**USES), entry("qwen3-reranker"))
    assert await look(api) == 15
    assert api.writes == ["status", "event CatalogModelNotFound"]
    assert api.status["phase"] == "Failed"
    assert "did you mean qwen3-reranker?" in api.status["message"]


async def test_an_entry_that_vanishes_leaves_the_replicas_as_they_are() -> None:
    known = {"catalog": "qwen3", "repo": "org/entry", "revision": COMMIT, "family": "qwen3"}
    running = {
        "kind": "Deployment",
        "metadata": {"name": "rerank-minilm"},
        "spec": {"template": {"metadata": {"annotations": {"rerank.dev/template": "t" * 16}}}},
    }
    body = {
        **resource(**USES),
        "status": {"observedGeneration": 1, "model": known, "effective": {"resources": {"cpu": "3"}}},
    }
    api = Objects(body, running, pods=[ready_pod("t" * 16)])
    assert await look(api, report()) == 15
    assert not api.applied
    assert "event CatalogModelNotFound" in api.writes
    assert api.status["phase"] == "Degraded"
    assert api.status["ready"] == "1/1"
    assert api.status["message"].startswith("1 of 1 replicas serve; there is no catalog entry qwen3")
    assert api.status["model"] == known, "the gateway knows the model by its repository still"
    assert api.status["effective"]["resources"]["cpu"] == "3", "what runs"


async def test_what_is_known_of_a_volume_stays_while_its_model_is_refused() -> None:
    volume = {"persistentVolumeClaim": {"claimName": "weights"}}
    known = {"sourceDigest": "d", "family": "bert"}
    body = resource(model=volume, engine={"extraArgs": ["--max-num-seqs=4"]})
    api = Objects({**body, "status": {"observedGeneration": 1, "model": known}})
    await look(api)
    assert not api.applied
    assert api.status["model"] == known


async def test_code_that_nobody_allowed_is_told() -> None:
    source = {"huggingFace": {"repo": "org/own-code", "revision": COMMIT}}
    body = resource(model=source, engine={"trustRemoteCode": True})
    api = Objects(body)
    assert await look(api) == 15
    assert api.writes == ["status", "event RemoteCodeNotAllowed"]
    assert api.status["phase"] == "Failed"
    assert f"org/own-code@{COMMIT}" in api.status["message"]

    api = Objects(body)
    settings = replace(SETTINGS, policy=Policy(remote_code=frozenset({f"org/own-code@{COMMIT}"})))
    assert await reconciler(api, settings=settings).reconcile("team", "minilm") is None
    assert "--trust-remote-code" in arguments(api)
    assert "--trust-remote-code" in arguments(api, "initContainers")


async def test_the_users_of_an_entry_are_noted_and_forgotten() -> None:
    api = Objects(resource(**USES), entry("qwen3"))
    subject = reconciler(api)
    await subject.reconcile("team", "minilm")
    assert subject.users.of("qwen3") == {("team", "minilm")}
    del api.objects["ModelDeployment"]
    await subject.reconcile("team", "minilm")
    assert subject.users.of("qwen3") == frozenset()


async def test_metrics_follow_the_model_and_leave_with_it() -> None:
    def samples() -> dict[str, tuple[dict[str, str], float]]:
        return {s.name: (s.labels, s.value) for family in metrics.collect() for s in family.samples}

    metrics = ModelMetrics()
    api = Objects(resource())
    models = reconciler(api, metrics=metrics)
    await models.reconcile("team", "minilm")
    labels = {"namespace": "team", "model": "minilm"}
    assert samples() == {
        "rerank_operator_model_phase": ({**labels, "phase": api.status["phase"]}, 1),
        "rerank_operator_model_replicas_wanted": (labels, 1),
        "rerank_operator_model_replicas_ready": (labels, 0),
    }
    del api.objects["ModelDeployment"]
    await models.reconcile("team", "minilm")
    assert samples() == {}


IN_IMAGE = {"model": {"image": {"reference": "models@sha256:" + "0" * 64}}}


async def test_an_image_volume_is_applied_where_the_cluster_keeps_it() -> None:
    api = Objects(resource(**IN_IMAGE))
    await look(api)
    volumes = api.applied["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["image"]["reference"] == IN_IMAGE["model"]["image"]["reference"]


CLAIMING = {"resources": {"gpu": {"resourceClaimTemplateName": "gpu-24g"}}}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [(IN_IMAGE, "ImageVolumesUnsupported"), (CLAIMING, "ResourceClaimsUnsupported")],
)
async def test_a_deployment_of_which_the_cluster_would_drop_a_part_is_not_applied(
    spec: Object, reason: str
) -> None:
    api = Objects(resource(**spec))
    api.is_old = True
    assert await look(api) == UNTOLD_SECONDS
    assert "Deployment" not in api.applied
    [ready] = [c for c in api.status["conditions"] if c["type"] == "Ready"]
    assert ready["reason"] == reason
