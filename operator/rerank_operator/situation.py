"""A model's replicas taken together: counts, progress, what is in the way. Pure; the status is made of it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rerank_api.effective import Effective
from rerank_api.model_deployment import ModelDeployment
from rerank_api.recipe import VerificationMode
from rerank_operator import capacity, causes, rollout
from rerank_operator.builders.source import Source
from rerank_operator.capacity import Wishes
from rerank_operator.causes import Cause, Standing, Step
from rerank_operator.nodes import Node
from rerank_operator.pod_status import Verification
from rerank_operator.pods import Pod

# Each attempt has another name; the status should not change with every one.
_POD_NAME: Final = re.compile(r'\bpods? "[^"]*"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps the operator from making or changing the replicas at all."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the status is made of.

    Attributes:
        model: the resource as read.
        effective: how the replicas are to run; None while that is not known.
        source: where the weights come from.
        commit: the commit that is served, where it is known.
        newest: pods of the newest template, with their standings; none that is being deleted or finished.
        existing: pods of any template that are neither being deleted nor finished.
        serving: those of them that are ready.
        cause: what is in the way of the newest pods, the first thing first.
        obstacle: what is in the way of the operator.
        overdue: no new replica became ready for as long as the rollout may take.
        warning: what may go wrong with a replica that is on its way, "" for nothing.
    """

    model: ModelDeployment
    effective: Effective | None
    source: Source
    commit: str | None
    newest: tuple[tuple[Pod, Standing], ...]
    existing: int
    serving: int
    cause: Cause | None
    obstacle: Obstacle | None
    overdue: bool
    warning: str = ""

    @property
    def wanted(self) -> int:
        """Replicas that there should be."""
        return self.model.wanted_replicas

    @property
    def ready(self) -> int:
        """Ready pods of the newest template."""
        return sum(standing.step == "Ready" for _, standing in self.newest)

    @property
    def scheduled(self) -> int:
        """Newest pods that have a node."""
        return sum(pod.scheduled for pod, _ in self.newest)

    @property
    def step(self) -> Step:
        """How far the most advanced newest pod that is not ready has come."""
        steps = [standing.step for _, standing in self.newest if standing.step != "Ready"]
        return max(steps, key=causes.STEPS.index, default="Pending")

    @property
    def verification(self) -> VerificationMode:
        """Whether ranking right is required of the newest pods."""
        return self.effective.scoring.verification.mode if self.effective is not None else "Required"

    @property
    def checks(self) -> tuple[Verification | None, ...]:
        """What the newest pods that are ready told of their verification; None from one that has not told."""
        reports = [pod.report for pod, standing in self.newest if standing.step == "Ready"]
        return tuple(report.verification if report is not None else None for report in reports)

    @property
    def doubt(self) -> Verification | None:
        """A verification that failed, and keeps nothing from serving, since it is only reported."""
        if self.verification != "Report":
            return None
        return next((c for c in self.checks if c is not None and not c.verified and c.reason), None)

    @property
    def complete(self) -> bool:
        """All replicas that are wanted are ready, and nothing keeps the operator from its work."""
        return self.wanted > 0 and self.ready >= self.wanted and self.obstacle is None


def assess(
    model: ModelDeployment,
    *,
    effective: Effective | None,
    source: Source,
    commit: str | None,
    template: str,
    pods: Iterable[Pod],
    obstacle: Obstacle | None,
    overdue: bool,
    nodes: Sequence[Node] | None = None,
    need: int | None = None,
) -> Situation:
    """Take the pods together.

    `template` is the digest that the newest pods carry, `nodes` are there where they were looked at, and
    `need` is the memory that the model takes, in bytes, where it is known before a replica tells.
    """
    pods = sorted(pods, key=lambda pod: pod.name)
    alive = [pod for pod in pods if not pod.deleting and not pod.finished]
    wishes = Wishes(effective, model.spec.scheduling) if effective is not None else None

    def judge(pod: Pod) -> Standing:
        standing = causes.judge(pod)
        if standing.cause is None or standing.cause.reason != causes.UNSCHEDULABLE:
            return standing
        better = capacity.explain(pod, wishes, nodes) if wishes is not None and nodes is not None else None
        return replace(standing, cause=better or standing.cause)

    newest = tuple((pod, judge(pod)) for pod in alive if pod.template == template)
    found = [standing.cause for _, standing in newest if standing.cause is not None]
    if not found and not any(standing.step == "Ready" for _, standing in newest):
        gone = (causes.ended(pod) for pod in pods if pod.finished and pod.template == template)
        found = [cause for cause in gone if cause is not None]
    warning = ""
    if wishes is not None and nodes is not None:
        coming = (pod for pod, standing in newest if standing.step != "Ready")
        warning = capacity.too_small(coming, wishes, nodes, need=need)
    return Situation(
        model=model,
        effective=effective,
        source=source,
        commit=commit,
        newest=newest,
        existing=len(alive),
        serving=sum(pod.ready for pod in alive),
        cause=min(found, key=_order, default=None),
        obstacle=obstacle,
        overdue=overdue,
        warning=warning,
    )


def replica_failure(deployment: Mapping[str, Any] | None) -> Obstacle | None:
    """Why pods cannot even be created (quota, admission), as the Deployment controller tells it."""
    condition = rollout.pods_refused(deployment or {})
    if condition is None:
        return None
    message = _POD_NAME.sub("a pod", condition.get("message", ""))
    return Obstacle("PodsRefused", f"the replicas cannot be created: {message}")


def overdue(deployment: Mapping[str, Any] | None) -> bool:
    """Whether the rollout that the Deployment is at makes no progress, as its controller tells."""
    body = deployment or {}
    return rollout.is_told(body) and any(
        condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"
        for condition in body.get("status", {}).get("conditions", ())
    )


def _order(cause: Cause) -> tuple[int, str, str]:
    """What stops a pod late says more than a neighbour that waits for a node; then by name, to be stable."""
    stages = ("ScoringVerified", "Serving", "Downloaded", "Scheduled")
    return stages.index(cause.stage), cause.reason, cause.message
