"""Pods as decisions see them: read from the API server's objects, not judged. Pure; used by observe."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rerank_api import names
from rerank_operator import quantity
from rerank_operator.builders.metadata import digest
from rerank_operator.pod_status import Reason, Report

FETCH = "fetch"
SERVE = "serve"
TEMPLATE_ANNOTATION = "rerank.dev/template"
SOURCE_ANNOTATION = "rerank.dev/source"

# k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources
_SHORT_OF: Final = re.compile(r"Insufficient (\S+?)[,.]?(?:\s|$)")
_TOO_MANY_PODS: Final = "Too many pods"
# What the scheduler says of its try to make room, after what it says of the nodes: the same, only longer.
_PREEMPTION: Final = re.compile(
    r"\s*((no new claims to deallocate|still not schedulable), )?preemption: .*", re.DOTALL
)
# k8s.io/kubernetes/pkg/scheduler/framework/plugins/dynamicresources
_NO_DEVICES: Final = "cannot allocate all claims"
# Stands before the name of a ResourceClaimTemplate in a pod's requests: see `claimed`.
CLAIMED: Final = "resourceclaimtemplate"
# k8s.io/kubernetes/pkg/scheduler/framework/plugins/interpodaffinity
_APART: Final = "didn't match pod anti-affinity rules"

# Events of the resource claim controller about what precedes the scheduler, which does not look at a pod
# that has no claim yet.
CLAIMING: Final = frozenset({"FailedResourceClaimCreation"})
# Events of the kubelet and of the attach/detach controller about what precedes the first container.
PREPARING: Final = frozenset(
    {
        "FailedMount",
        "FailedMapVolume",
        "FailedAttachVolume",
        "FailedPrepareDynamicResources",
        "FailedCreatePodSandBox",
        "NetworkNotReady",
    }
)

_MESSAGE_LIMIT = 1024
_PLACEMENT: Final = ("nodeSelector", "affinity", "tolerations", "runtimeClassName", "priorityClassName")


class TerminationMessage(BaseModel):
    """What our containers write when they end: why, and whether trying again may help."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: Reason
    message: str = ""
    retriable: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container ended: the kubelet's `reason` (Error, OOMKilled…) and our own `message`, if any."""

    exit_code: int
    reason: str = ""
    message: TerminationMessage | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod. `ending` is how it last ended: now, or before it was started again."""

    state: Literal["waiting", "running", "terminated"] = "waiting"
    waiting_reason: str = ""
    waiting_message: str = ""
    ending: Ending | None = None
    restarts: int = 0
    image: str = ""

    @property
    def succeeded(self) -> bool:
        """It has done its work and ended."""
        return self.state == "terminated" and self.ending is not None and self.ending.exit_code == 0

    @property
    def failure(self) -> Ending | None:
        """How it last failed, if it did."""
        return self.ending if self.ending is not None and self.ending.exit_code != 0 else None


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a node says of a pod as a whole: a word and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What a pod asks the scheduler for.

    Attributes:
        requests: amounts by resource; a pod is one of `pods`, and what is `claimed` is one.
        tolerations: as in its spec.
        placement: a digest of all that decides which nodes will do.
        priority_class: the name of its PriorityClass, which quotas may be for.
        apart: whether an anti-affinity that is about replicas of the model alone keeps them apart.
    """

    requests: Mapping[str, Decimal] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    placement: str = ""
    priority_class: str = ""
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a model.

    Attributes:
        unschedulable: the scheduler's words, while it finds no node.
        unschedulable_since: since when it finds none.
        nominated: whether room is being made for the pod on a node.
        unclaimed_since: since when the pod waits for a claim to be made from a template, until it is.
        unprepared_since: since when its node prepares volumes and network for it, until it has.
        complaint: what is in the way of that claim, or what the node says is in the way of those.
        ended: why the node ended the whole pod, as it says, if it did.
        report: what the pod says of itself, if it was asked and answered.
    """

    name: str
    uid: str
    ip: str | None = None
    node: str = ""
    template: str = ""
    source: str = ""
    deleting: bool = False
    finished: bool = False
    scheduled: bool = False
    unschedulable: str = ""
    unschedulable_since: datetime | None = None
    nominated: bool = False
    claim: Claim = Claim()
    unclaimed_since: datetime | None = None
    unprepared_since: datetime | None = None
    complaint: Complaint | None = None
    ended: Complaint | None = None
    ready: bool = False
    fetch: Container | None = None
    serve: Container = Container()
    report: Report | None = None

    @property
    def short_of(self) -> frozenset[str]:
        """The resources that the scheduler found too little of, on nodes that are right otherwise."""
        words = self.unschedulable
        found = set(_SHORT_OF.findall(words))
        if _TOO_MANY_PODS in words or (self.claim.apart and _APART in words):
            found.add("pods")
        if _NO_DEVICES in words:
            found |= {name for name in self.claim.requests if name.startswith(claimed(""))}
        return frozenset(found)

    @property
    def untouched(self) -> bool:
        """It has a node, and no container of it was started yet."""
        first = self.fetch or self.serve
        return not self.deleting and self.scheduled and first.state == "waiting" and first.ending is None

    @property
    def running(self) -> bool:
        """A container of ours runs that could answer on the status port."""
        return not self.deleting and any(
            container is not None and container.state == "running" for container in (self.fetch, self.serve)
        )


def read(body: Mapping[str, Any], *, report: Report | None = None) -> Pod:
    """The pod in an object of the API server."""
    metadata, status = body["metadata"], body.get("status", {})
    annotations = metadata.get("annotations", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    scheduled = conditions.get("PodScheduled", {})
    phase = status.get("phase", "Pending")
    containers = {c["name"]: c for c in status.get("containerStatuses", ())}
    init = {c["name"]: c for c in status.get("initContainerStatuses", ())}
    placed, unschedulable = scheduled.get("status") == "True", scheduled.get("status") == "False"
    prepared = conditions.get("PodReadyToStartContainers", {}).get("status") == "True"
    wants_fetch = any(c["name"] == FETCH for c in body.get("spec", {}).get("initContainers", ()))
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        ip=status.get("podIP") or None,
        node=body.get("spec", {}).get("nodeName", ""),
        template=annotations.get(TEMPLATE_ANNOTATION, ""),
        source=annotations.get(SOURCE_ANNOTATION, ""),
        deleting="deletionTimestamp" in metadata,
        finished=phase in {"Failed", "Succeeded"},
        scheduled=placed,
        unschedulable=_cut(_PREEMPTION.sub("", scheduled.get("message", ""))) if unschedulable else "",
        unschedulable_since=_time(scheduled) if unschedulable else None,
        nominated=bool(status.get("nominatedNodeName")),
        claim=claim_of(body.get("spec", {})),
        unclaimed_since=None if placed or unschedulable else _unclaimed_since(body),
        unprepared_since=_time(scheduled) if placed and not prepared else None,
        ended=_ended(status),
        ready=conditions.get("Ready", {}).get("status") == "True",
        fetch=_container(init.get(FETCH, {})) if wants_fetch else None,
        serve=_container(containers.get(SERVE, {})),
        report=report,
    )


def is_replica(body: Mapping[str, Any], *, deployment: str) -> bool:
    """Whether the pod is one that the Deployment made, and has an address of its own.

    Labels alone prove nothing: anybody in the namespace may set them. And a pod in the host's network would
    answer with somebody else's port.
    """
    owners = body["metadata"].get("ownerReferences", ())
    return not body.get("spec", {}).get("hostNetwork", False) and any(
        owner.get("controller")
        and owner.get("kind") == "ReplicaSet"
        and owner["name"].startswith(f"{deployment}-")
        for owner in owners
    )


def claimed(template: str) -> str:
    """What stands in a pod's requests for the device that it claims by a ResourceClaimTemplate."""
    return f"{CLAIMED}/{template}"


def complaint(events: Iterable[Mapping[str, Any]], *, about: Collection[str]) -> Complaint | None:
    """The newest of the Events of a pod that tells why it does not come on, by one of these reasons."""
    telling = [event for event in events if event.get("reason") in about]
    newest = max(telling, key=_told_at, default=None)
    return Complaint(newest["reason"], _cut(newest.get("note", ""))) if newest is not None else None


def _told_at(event: Mapping[str, Any]) -> str:
    """When an event was last told, in a form that sorts. Kubelets still write the old fields."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("eventTime"), event.get("deprecatedLastTimestamp"))
    return max(time for time in (*times, "") if time is not None)


def _ended(status: Mapping[str, Any]) -> Complaint | None:
    reason = status.get("reason", "")
    if status.get("phase") != "Failed" or not reason:
        return None
    return Complaint(reason, _cut(status.get("message", "")))


def _time(condition: Mapping[str, Any]) -> datetime | None:
    text = condition.get("lastTransitionTime")
    return datetime.fromisoformat(text) if text else None


def _unclaimed_since(body: Mapping[str, Any]) -> datetime | None:
    wanted = {claim["name"] for claim in body.get("spec", {}).get("resourceClaims", ())}
    made = {claim["name"] for claim in body.get("status", {}).get("resourceClaimStatuses", ())}
    metadata = body["metadata"]
    waits = wanted - made and "deletionTimestamp" not in metadata
    return datetime.fromisoformat(metadata["creationTimestamp"]) if waits else None


def claim_of(spec: Mapping[str, Any]) -> Claim:
    """What a pod with this spec asks for.

    As the scheduler counts: the containers together, or a step before them that takes more.
    """

    def requests(container: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = container.get("resources", {}).get("requests", {})
        return found

    together = _sum(map(requests, spec.get("containers", ())))
    for container in spec.get("initContainers", ()):
        for resource, amount in _sum([requests(container)]).items():
            together[resource] = max(together.get(resource, Decimal(0)), amount)
    together["pods"] = Decimal(1)
    for claim in spec.get("resourceClaims", ()):
        together[claimed(claim.get("resourceClaimTemplateName", ""))] = Decimal(1)
    return Claim(
        requests=together,
        tolerations=tuple(spec.get("tolerations", ())),
        placement=digest([*(spec.get(name) for name in _PLACEMENT), _spread(spec)]),
        priority_class=spec.get("priorityClassName", ""),
        apart=_apart(spec),
    )


def _spread(spec: Mapping[str, Any]) -> list[Any]:
    """How a pod is spread, without what tells its revision: the API server writes that into selectors."""
    return [
        {name: value for name, value in constraint.items() if name != "labelSelector"}
        if "matchLabelKeys" in constraint
        else constraint
        for constraint in spec.get("topologySpreadConstraints", ())
    ]


def _apart(spec: Mapping[str, Any]) -> bool:
    rules = spec.get("affinity", {}).get("podAntiAffinity", {})
    terms = rules.get("requiredDuringSchedulingIgnoredDuringExecution", ())
    selected = [term.get("labelSelector", {}).get("matchLabels", {}) for term in terms]
    return bool(selected) and all(names.MODEL_LABEL in labels for labels in selected)


def _sum(requests: Iterable[Mapping[str, Any]]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for each in requests:
        for resource, amount in each.items():
            found[resource] = found.get(resource, Decimal(0)) + quantity.parse(amount)
    return found


def _container(status: Mapping[str, Any]) -> Container:
    state = status.get("state", {})
    waiting = state.get("waiting", {})
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated")
    name: Literal["waiting", "running", "terminated"] = (
        "terminated" if "terminated" in state else "running" if "running" in state else "waiting"
    )
    return Container(
        state=name,
        waiting_reason=waiting.get("reason", ""),
        waiting_message=_cut(waiting.get("message", "")),
        ending=_ending(ended) if ended else None,
        restarts=status.get("restartCount", 0),
        image=status.get("image", ""),
    )


def _ending(terminated: Mapping[str, Any]) -> Ending:
    try:
        message = TerminationMessage.model_validate(json.loads(terminated.get("message", "")))
    except (ValueError, ValidationError):
        message = None
    if message is not None:
        message = message.model_copy(update={"message": _cut(message.message)}) if message.reason else None
    return Ending(
        exit_code=terminated.get("exitCode", 0), reason=terminated.get("reason", ""), message=message
    )


def _cut(text: str) -> str:
    """One line of bounded length: what others wrote must not make a status unreadable."""
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"
