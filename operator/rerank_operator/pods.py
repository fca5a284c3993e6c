"""Pods as decisions see them: read from the API server's objects, not judged. Pure; used by observe."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rerank_operator.pod_status import Reason, Report

FETCH = "fetch"
SERVE = "serve"
TEMPLATE_ANNOTATION = "rerank.dev/template"
SOURCE_ANNOTATION = "rerank.dev/source"

_MESSAGE_LIMIT = 1024


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
class Pod:
    """One pod of a model. `report` is what the pod says of itself, if it was asked and answered."""

    name: str
    uid: str
    ip: str | None = None
    template: str = ""
    source: str = ""
    deleting: bool = False
    finished: bool = False
    scheduled: bool = False
    unschedulable: str = ""
    evicted: str = ""
    ready: bool = False
    fetch: Container | None = None
    serve: Container = Container()
    report: Report | None = None

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
    wants_fetch = any(c["name"] == FETCH for c in body.get("spec", {}).get("initContainers", ()))
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        ip=status.get("podIP") or None,
        template=annotations.get(TEMPLATE_ANNOTATION, ""),
        source=annotations.get(SOURCE_ANNOTATION, ""),
        deleting="deletionTimestamp" in metadata,
        finished=phase in {"Failed", "Succeeded"},
        scheduled=scheduled.get("status") == "True",
        unschedulable=_cut(scheduled.get("message", "")) if scheduled.get("status") == "False" else "",
        evicted=_cut(status.get("message", "")) if status.get("reason") == "Evicted" else "",
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
