"""One ModelDeployment and what belongs to it, in memory; the operator that looks, and others who meddle."""

import asyncio
import copy
import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from rerank_operator.api_error import ApiError
from rerank_operator.autoscaling import Autoscaled
from rerank_operator.catalog import BuiltIn, Users
from rerank_operator.claims import Claims
from rerank_operator.cluster import Cluster
from rerank_operator.events import Recorder
from rerank_operator.listed import Listed
from rerank_operator.model_metrics import ModelMetrics
from rerank_operator.model_reconciler import ModelReconciler
from rerank_operator.name_claims import known_names
from rerank_operator.observe import CHILDREN, Nodes, Reports
from rerank_operator.pod_status import Report
from rerank_operator.resources import Object, Resource
from tests.rerank_operator.model_specs import LISTED, POLICY
from tests.rerank_operator.test_model_reconciler import SETTINGS

GPU = "nvidia.com/gpu"
KINDS = tuple(child.kind for child in CHILDREN)


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
        self.node: Object = {
            "metadata": {"name": "n1", "labels": {f"{GPU}.memory": "15360"}},
            "status": {"allocatable": {GPU: "1"}},
        }
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

    async def rehearse(self, intent: Object, *, resource_version: str | None) -> Object:
        return copy.deepcopy(intent)

    async def confirm(self, resource: Resource, live: Object) -> None:
        assert live["metadata"]["resourceVersion"] == self.model["metadata"]["resourceVersion"]

    async def delete(self, live: Object) -> None:
        del self.children[live["kind"]]
        self.writes.append(f"delete {live['kind']}")

    async def apply_status(
        self, resource: Resource, live: Object, status: Object, *, field_manager: str = ""
    ) -> Object:
        assert live["metadata"]["resourceVersion"] == self.model["metadata"]["resourceVersion"]
        decided = {k: v for k, v in self.model.get("status", {}).items() if k == "autoscaling"}
        self.model["status"] = copy.deepcopy(status) | decided  # that part is another writer's
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
            settings=replace(SETTINGS, policy=POLICY),
            users=Users(),
            entries=BuiltIn({"listed": LISTED}),
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


EARLIER: Object = {
    "apiVersion": "rerank.dev/v1alpha1",
    "kind": "ModelDeployment",
    "name": "m",
    "uid": "of the one before",
    "controller": True,
}


def disturb(world: World, how: str, kind: str) -> None:
    """What others do to the child of a kind."""
    child = world.children.get(kind)
    if how == "gone":
        world.children.pop(kind, None)
    elif how in {"somebody else's", "an earlier owner's"}:
        world.children[kind] = body = child or {
            "kind": kind,
            "metadata": {"name": "rerank-m", "namespace": "team"},
            "spec": {"template": {"metadata": {}, "spec": {}}},
        }
        body["metadata"]["resourceVersion"] = next(world.versions)
        body["metadata"]["ownerReferences"] = [EARLIER] if how == "an earlier owner's" else []
    elif child is None:
        return
    elif how == "leaving":
        child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    elif how == "scaled":
        child["spec"]["replicas"] = 7
    elif how == "surging":
        child["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": 0}}


def is_ours(child: Object) -> bool:
    """Whether it is a child of this ModelDeployment that stays."""
    metadata = child["metadata"]
    return "deletionTimestamp" not in metadata and any(
        owner["uid"] == "u" for owner in metadata["ownerReferences"]
    )
