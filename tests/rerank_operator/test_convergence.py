"""Whatever there is to see: one look does all that there is to do, and the next one does nothing.

The children are kept as the API server keeps them, so that each look plans from what the one before has
written.
"""

import copy
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders.metadata import is_owned
from rerank_operator.builders.pod_disruption_budget import is_wanted
from rerank_operator.conditions import verdicts
from rerank_operator.pod_status import Report
from rerank_operator.pods import Container, Pod
from rerank_operator.resources import Object
from tests.rerank_operator.model_specs import SPECS, is_refused, needs_pin
from tests.rerank_operator.one_model import GPU, KINDS, Looking, World, disturb, is_ours
from tests.rerank_operator.samples import COMMIT, DONE, RUNNING, model, pod, report, serving, situation

pytestmark = pytest.mark.slow

CONDITIONS = ("Scheduled", "Downloaded", "Serving", "ScoringVerified", "Progressing", "Ready")
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
    report("Ready", model={"family": "bert", "memoryBytes": 18 * 2**30}),
]
WORDS = [
    "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    "0/1 nodes are available: 1 Insufficient memory.",
    'persistentvolumeclaim "x" not found',
    "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
]


@dataclass(frozen=True)
class Seen:
    """A pod as it may be found. `current`: of the newest revision, not of an older one of the same source."""

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

    def body(self, number: int, *, template: Object) -> Object:
        since = (datetime.now(UTC) - timedelta(minutes=self.minutes)).isoformat()
        scheduled = {
            "type": "PodScheduled",
            "status": "True" if self.words is None else "False",
            "message": self.words or "",
            "lastTransitionTime": since,
        }
        annotations = template["metadata"].get("annotations", {})
        metadata = {
            "name": f"p{number}",
            "uid": f"p{number}",
            "annotations": annotations if self.current else {**annotations, "rerank.dev/template": "older"},
            "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "rerank-m-1"}],
        }
        return {
            "metadata": metadata | ({"deletionTimestamp": since} if self.deleting else {}),
            "spec": {
                "nodeName": "n1",
                "initContainers": template["spec"].get("initContainers", []),
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
NO_DEPLOYMENT: Object = {"spec": {"template": {"metadata": {}, "spec": {}}}}
HARM = st.sampled_from(
    [
        ("none", ""),
        ("scaled", "Deployment"),
        ("surging", "Deployment"),
        *itertools.product(("gone", "somebody else's", "an earlier owner's", "leaving"), KINDS),
    ]
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(SPECS, st.none() | st.integers(0, 4), PODS, HARM), min_size=1, max_size=3))
def test_the_second_look_at_the_same_does_nothing(
    rounds: list[tuple[Object, int | None, list[Seen], tuple[str, str]]],
) -> None:
    looking = Looking()
    world = looking.world
    for spec, decided, seen, harm in rounds:
        world.model["spec"] = spec
        world.model["metadata"]["generation"] += 1
        if decided is not None:
            world.model.setdefault("status", {})["autoscaling"] = {"replicas": decided}
        # What was in the way of the round before has gone by now.
        world.children = {kind: child for kind, child in world.children.items() if is_ours(child)}
        disturb(world, *harm)
        found = copy.deepcopy(world.children)
        looking.look()  # the newest revision has its name now
        before = world.model["status"]["conditions"]
        template = world.children.get("Deployment", NO_DEPLOYMENT)["spec"]["template"]
        world.pods = [each.body(number, template=template) for number, each in enumerate(seen, start=1)]
        world.answers = {f"10.0.0.{n}": each.answer for n, each in enumerate(seen, start=1) if each.answer}
        looking.look()
        assert looking.look() == []
        check_children(world, found)
        check_conditions(before, world.model)


def check_children(world: World, found: dict[str, Object]) -> None:
    """All that are wanted are there, and no others; where something is in the way, all stay as they were.

    The first look tries to make them before it knows what is in the way.
    """
    of = ModelDeployment.parse(world.model)
    wanted = {"Service", "NetworkPolicy", "Deployment"}
    if is_wanted(of.spec):
        wanted.add("PodDisruptionBudget")
    if needs_pin(world.model["spec"]) or ("ConfigMap" in found and is_owned(found["ConfigMap"], "u")):
        wanted.add("ConfigMap")
    others = {kind for kind, child in found.items() if not is_ours(child)}
    refused, in_the_way = is_refused(world.model["spec"]), wanted & others
    for kind in found if refused or in_the_way else others:
        assert world.children[kind] == found[kind]
    if not refused and not in_the_way:
        assert set(world.children) == wanted | others
    elif refused or of.metadata.generation > 1:
        assert set(world.children) == set(found)
    if refused or in_the_way:
        (ready,) = [each for each in of.status.conditions if each.type == "Ready"]
        assert ready.status == "False"


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
