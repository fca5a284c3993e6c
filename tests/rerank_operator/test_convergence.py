"""Whatever there is to see: one look does all that there is to do, and the next one does nothing.

The children are kept as the API server keeps them, so that each look plans from what the one before has
written.
"""

import asyncio
import copy
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_api.model_deployment import ModelDeployment
from rerank_operator.api_error import ApiError
from rerank_operator.autoscaling import Autoscaled
from rerank_operator.builders.pod_disruption_budget import is_wanted
from rerank_operator.catalog import BuiltIn, Users
from rerank_operator.claims import Claims
from rerank_operator.cluster import Cluster
from rerank_operator.conditions import verdicts
from rerank_operator.events import Recorder
from rerank_operator.listed import Listed
from rerank_operator.model_metrics import ModelMetrics
from rerank_operator.model_reconciler import ModelReconciler
from rerank_operator.name_claims import known_names
from rerank_operator.observe import Nodes, Reports
from rerank_operator.pod_status import Report
from rerank_operator.pods import Container, Pod
from rerank_operator.resources import Object, Resource
from tests.rerank_operator.samples import COMMIT, DONE, RUNNING, model, pod, report, serving, situation
from tests.rerank_operator.test_model_reconciler import SETTINGS

pytestmark = pytest.mark.slow

CONDITIONS = ("Scheduled", "Downloaded", "Serving", "ScoringVerified", "Progressing", "Ready")
GPU = "nvidia.com/gpu"


class World(Cluster):
    """One ModelDeployment, its children and its pods. Holds what is applied, and counts writes."""

    def __init__(self) -> None:
        super().__init__(api=None)  # type: ignore[arg-type]  # nothing is connected
        self.versions = map(str, itertools.count(1))
        metadata = {"name": "m", "namespace": "team", "uid": "u", "generation": 0, "resourceVersion": "0"}
        self.model: Object = {"metadata": metadata, "spec": {}}
        self.children: dict[str, Object] = {}
        self.pods: list[Object] = []
        self.answers: dict[str, Report] = {}
        self.node: Object = {"metadata": {"name": "n1"}, "status": {"allocatable": {GPU: "1"}}}
        self.writes: list[str] = []

    async def warnings(self, namespace: str, uid: str) -> Any:
        return [{"reason": "FailedMount", "note": f"of {uid}"}]

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        found = self.model if resource.kind == "ModelDeployment" else self.children.get(resource.kind)
        return copy.deepcopy(found)

    async def list(self, resource: Resource, namespace: str | None, *, labels: str = "") -> list[Object]:
        return copy.deepcopy(self.pods)

    async def pages(self, resource: Resource, namespace: str | None, *, labels: str = "", **_: Any) -> Any:
        yield copy.deepcopy(self.node if resource.kind == "Node" else self.model)

    async def apply(self, intent: Object, *, resource_version: str | None) -> Object:
        there = self.children.get(intent["kind"])
        if (there["metadata"]["resourceVersion"] if there else None) != resource_version:
            raise ApiError(409, "Conflict", "planned from another version")
        body = copy.deepcopy(intent)
        body["metadata"] |= {"uid": intent["kind"], "resourceVersion": next(self.versions)}
        self.children[intent["kind"]] = body
        self.writes.append(intent["kind"])
        return body

    async def confirm(self, resource: Resource, live: Object) -> None:
        assert live["metadata"]["resourceVersion"] == self.model["metadata"]["resourceVersion"]

    async def delete(self, live: Object) -> None:
        del self.children[live["kind"]]
        self.writes.append(f"delete {live['kind']}")

    async def apply_status(
        self, resource: Resource, live: Object, status: Object, *, field_manager: str = ""
    ) -> Object:
        assert live["metadata"]["resourceVersion"] == self.model["metadata"]["resourceVersion"]
        self.model["status"] = copy.deepcopy(status)
        self.model["metadata"]["resourceVersion"] = next(self.versions)
        self.writes.append("status")
        return live

    async def create_event(self, event: Object) -> None:
        """Events are no state."""

    async def ask(self, ip: str) -> Report | None:
        """What the pod at `ip` tells of itself."""
        return self.answers.get(ip)


@dataclass
class Looking:
    """The world, and the operator that looks at it."""

    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        listed = Listed(self.world, ())
        self.reconciler = ModelReconciler(
            api=self.world,
            listed=listed,
            reports=Reports(asker=self.world),
            recorder=Recorder(api=self.world, instance="i"),
            settings=SETTINGS,
            users=Users(),
            entries=BuiltIn({}),
            metrics=ModelMetrics(),
            autoscaled=Autoscaled(),
            claims=Claims(known_names(listed)),
            wake=lambda *_: None,
            nodes=Nodes(api=self.world, readable=True),
            backend_master=b"m" * 32,
        )

    def look(self) -> list[str]:
        """One look; what it wrote."""
        self.world.writes = []
        asyncio.run(self.reconciler.reconcile("team", "m"))
        return self.world.writes


SPECS = st.fixed_dictionaries(
    {"replicas": st.integers(0, 3)},
    optional={
        "resources": st.sampled_from(
            [{"gpu": {"count": 0}}, {"gpu": {"minMemory": "24G"}}, {"memory": "4Gi"}, {"cpu": "500m"}]
        ),
        "scheduling": st.sampled_from([{"nodeSelector": {"a": "b"}}, {"topologySpreadConstraints": []}]),
        "rollout": st.fixed_dictionaries({"strategy": st.sampled_from(["Auto", "Surge", "Recreate"])}),
        "storage": st.just({"ephemeral": {"sizeLimit": "20Gi"}}),
        "aliases": st.just(["other"]),
        "autoscaling": st.sampled_from([{"maxReplicas": 2}, {"minReplicas": 0, "maxReplicas": 4}]),
    },
).map(lambda spec: {"model": {"huggingFace": {"repo": "org/name"}}, **spec})

STATES: list[Object] = [
    {"waiting": {"reason": "PodInitializing"}},
    {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
    {"running": {}},
    {"terminated": {"exitCode": 0}},
    {"terminated": {"exitCode": 1, "message": '{"reason": "RepositoryGated", "message": "ask"}'}},
    {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
]
REPORTS = [
    None,
    report("Downloading", source={"repo": "org/name", "revision": COMMIT}),
    report("Downloading", download={"bytes": 5, "totalBytes": 10}),
    report("Starting"),
    report("Verifying", verification={"verified": False, "reason": "ScoresInverted", "message": "no"}),
    report("Ready"),
]
WORDS = [
    "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    "0/1 nodes are available: 1 Insufficient memory.",
    'persistentvolumeclaim "x" not found',
    "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
]


@dataclass(frozen=True)
class Seen:
    """A pod as it may be found. `current` tells whether it is of the newest revision."""

    current: bool
    deleting: bool
    phase: str
    reason: str
    words: str | None
    minutes: int
    ready: bool
    fetch: Object
    serve: Object
    answer: Report | None

    def body(self, number: int, *, template: str) -> Object:
        since = (datetime.now(UTC) - timedelta(minutes=self.minutes)).isoformat()
        scheduled = {
            "type": "PodScheduled",
            "status": "True" if self.words is None else "False",
            "message": self.words or "",
            "lastTransitionTime": since,
        }
        metadata = {
            "name": f"p{number}",
            "uid": f"p{number}",
            "annotations": {"rerank.dev/template": template if self.current else "older"},
            "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "rerank-m-1"}],
        }
        return {
            "metadata": metadata | ({"deletionTimestamp": since} if self.deleting else {}),
            "spec": {
                "nodeName": "n1",
                "initContainers": [{"name": "fetch"}],
                "containers": [{"name": "serve", "resources": {"requests": {GPU: "1", "memory": "8Gi"}}}],
            },
            "status": {
                "phase": self.phase,
                "reason": self.reason,
                "podIP": f"10.0.0.{number}",
                "conditions": [scheduled, {"type": "Ready", "status": str(self.ready)}],
                "initContainerStatuses": [{"name": "fetch", "state": self.fetch}],
                "containerStatuses": [{"name": "serve", "state": self.serve}],
            },
        }


PODS = st.lists(
    st.builds(
        Seen,
        current=st.booleans(),
        deleting=st.booleans(),
        phase=st.sampled_from(["Pending", "Running", "Failed"]),
        reason=st.sampled_from(["", "Evicted", "NodeAffinity"]),
        words=st.none() | st.sampled_from(WORDS),
        minutes=st.sampled_from([0, 60]),
        ready=st.booleans(),
        fetch=st.sampled_from(STATES),
        serve=st.sampled_from(STATES),
        answer=st.sampled_from(REPORTS),
    ),
    max_size=4,
)
HARM = st.sampled_from(
    [
        "none",
        "ConfigMap",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "Deployment",
        "scaled",
        "surging",
    ]
)


def disturb(world: World, harm: str) -> None:
    """What others do to the children."""
    deployment = world.children.get("Deployment")
    if harm in world.children:
        del world.children[harm]
    elif harm == "scaled" and deployment is not None:
        deployment["spec"]["replicas"] = 7
    elif harm == "surging" and deployment is not None:
        deployment["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": 0}}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(SPECS, PODS, HARM), min_size=1, max_size=3))
def test_the_second_look_at_the_same_does_nothing(rounds: list[tuple[Object, list[Seen], str]]) -> None:
    looking = Looking()
    world = looking.world
    for spec, seen, harm in rounds:
        world.model["spec"] = spec
        world.model["metadata"]["generation"] += 1
        disturb(world, harm)
        looking.look()  # the newest revision has its name now
        before = world.model["status"]["conditions"]
        revision = world.children["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        world.pods = [
            each.body(number, template=revision["rerank.dev/template"])
            for number, each in enumerate(seen, start=1)
        ]
        world.answers = {f"10.0.0.{n}": each.answer for n, each in enumerate(seen, start=1) if each.answer}
        looking.look()
        assert looking.look() == []
        check_children(world)
        check_conditions(before, world.model)


def check_children(world: World) -> None:
    """All that are wanted are there, and no others."""
    always = {"ConfigMap", "Service", "NetworkPolicy", "Deployment"}
    budget = {"PodDisruptionBudget"} if is_wanted(ModelDeployment.parse(world.model).spec) else set()
    assert set(world.children) == always | budget


def check_conditions(before: list[Object], body: Object) -> None:
    """They are all there, of this generation, and their times move with their statuses alone."""
    after = {condition["type"]: condition for condition in body["status"]["conditions"]}
    assert tuple(after) == (*CONDITIONS, "NamesResolved")
    for condition in after.values():
        assert condition["observedGeneration"] == body["metadata"]["generation"]
        assert condition["reason"]
    for old in before:
        new = after[old["type"]]
        if new["status"] == old["status"]:
            assert new["lastTransitionTime"] == old["lastTransitionTime"]
    assert body["status"]["observedGeneration"] == body["metadata"]["generation"]
    ready = body["status"]["readyReplicas"]
    assert body["status"]["ready"] == f"{ready}/{ModelDeployment.parse(body).wanted_replicas}"
    if after["Ready"]["status"] == "True":
        assert after["Serving"]["status"] == after["Progressing"]["status"] == "True"


def stages(name: str) -> list[Pod]:
    """A replica from its creation to its readiness, without an accident."""
    return [
        pod(name, scheduled=False, fetch=Container()),
        pod(name, fetch=Container(waiting_reason="PodInitializing")),
        pod(name),
        pod(name, fetch=DONE, serve=RUNNING, report=report("Starting")),
        pod(name, fetch=DONE, serve=RUNNING, report=report("Verifying")),
        serving(name, report=report("Ready")),
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(1, 3))
def test_nothing_that_was_reached_is_lost_while_replicas_only_advance(
    order: list[int], replicas: int
) -> None:
    """No condition that is True becomes another while nothing goes wrong. A download is news, not a loss."""
    names = [f"p{number}" for number in range(replicas)]
    at = dict.fromkeys(names, 0)
    reached: set[str] = set()
    for step in order:
        name = names[step % replicas]
        at[name] = min(at[name] + 1, len(stages(name)) - 1)
        pods = [stages(each)[stage] for each, stage in at.items()]
        now = {v.type for v in verdicts(situation(*pods, of=model(replicas=replicas))) if v.status == "True"}
        assert reached - {"Downloaded"} <= now
        reached = now
    if set(at.values()) == {len(stages("p")) - 1}:
        assert reached == set(CONDITIONS)
