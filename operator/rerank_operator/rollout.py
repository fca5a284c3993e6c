"""How a new revision takes the place of the old one. Pure; used by the model reconciler.

The Deployment controller does the work. What is chosen here, anew with each look, is its strategy. Whether
there is room beside the old replicas is not asked beforehand but seen: by what the scheduler says of the
first new one, or a ResourceQuota that does not let it be made.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from rerank_api.model_deployment import RolloutStrategy
from rerank_operator import quota
from rerank_operator.pods import TEMPLATE_ANNOTATION, Claim, Pod, claim_of
from rerank_operator.quota import Excess
from rerank_operator.resources import Object

# A place that is being vacated shows within this time: a pod of somebody else's that ends, a new node.
PATIENCE: Final = timedelta(seconds=10)

SURGE: Final[Object] = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
}
ONE_BY_ONE: Final[Object] = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
}
RECREATE: Final[Object] = {"type": "Recreate"}


def strategy(
    asked: RolloutStrategy,
    *,
    template: str,
    live: Mapping[str, Any] | None,
    pods: Iterable[Pod],
    now: datetime,
) -> Object:
    """The Deployment's strategy.

    Args:
        asked: of the spec.
        template: the digest of the wanted revision.
        live: the Deployment as it is; what it does for the same revision, it goes on doing.
        pods: of any revision.
        now: with time zone.
    """
    if asked == "Recreate":
        return RECREATE
    if asked == "Surge":
        return SURGE
    pods = [pod for pod in pods if not pod.finished]
    old = [pod for pod in pods if pod.template != template and not pod.deleting]
    if not old:
        return SURGE
    if not any(pod.ready for pod in old):
        return ONE_BY_ONE  # they keep nothing going, and may hold the room that the new ones need
    if _goes_one_by_one(live, template):
        return ONE_BY_ONE
    if any(pod.deleting for pod in pods):
        return SURGE  # their places are about to be free
    new = [pod for pod in pods if pod.template == template]
    if new:
        stuck = _no_room(new, beside=old, now=now)
    else:  # where there is one, it was let be made
        stuck = live is not None and _is_of(live, template) and _no_quota(live, beside=old, now=now)
    return ONE_BY_ONE if stuck else SURGE


def patience_left(pods: Iterable[Pod], *, now: datetime) -> float | None:
    """Seconds until the first pod that finds no node has waited for long enough to be decided about.

    None when there is nothing to wait for: what changes later is told by an event.
    """
    waits = (pod.unschedulable_since + PATIENCE - now for pod in pods if pod.unschedulable_since is not None)
    left = [wait.total_seconds() for wait in waits if wait > timedelta()]
    return min(left, default=None)


def pods_refused(deployment: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The Deployment's condition that pods cannot even be created, where that is so."""
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            found: Mapping[str, Any] = condition
            return found
    return None


def is_told(deployment: Mapping[str, Any]) -> bool:
    """Whether the Deployment's status is of its newest spec."""
    told, newest = deployment.get("status", {}), deployment.get("metadata", {})
    return bool(told.get("observedGeneration") == newest.get("generation"))


def _goes_one_by_one(live: Mapping[str, Any] | None, template: str) -> bool:
    if live is None or not _is_of(live, template):
        return False
    return (live["spec"].get("strategy", {}).get("rollingUpdate") or {}).get("maxSurge") == 0


def _is_of(live: Mapping[str, Any], template: str) -> bool:
    annotations = live["spec"]["template"]["metadata"].get("annotations") or {}
    return annotations.get(TEMPLATE_ANNOTATION) == template


def _no_room(new: Iterable[Pod], *, beside: Iterable[Pod], now: datetime) -> bool:
    """A new replica waits for a node in vain, and the end of an old one would give it a place."""
    return any(
        pod.unschedulable_since is not None
        and now - pod.unschedulable_since >= PATIENCE
        and not pod.nominated
        and any(_makes_room(old, pod) for old in beside)
        for pod in new
    )


def _makes_room(old: Pod, new: Pod) -> bool:
    """Where `old` runs there is a place for `new` once it has ended.

    Ending one for a replica that would not fit there either takes away what serves, for nothing.
    """
    if not new.short_of:
        return False  # it is not for room that the new one waits
    old_claim, new_claim = old.claim, new.claim
    return (
        old.scheduled
        and old_claim.placement == new_claim.placement
        and all(new_claim.requests.get(name, 0) <= old_claim.requests.get(name, 0) for name in new.short_of)
    )


def _no_quota(live: Mapping[str, Any], *, beside: Iterable[Pod], now: datetime) -> bool:
    """A quota keeps the first new replica from being made, and the end of an old one would let it.

    Where a quota was lowered below what is in use, that would only take away what serves. The words are those
    of the first refusal, and name one quota only: there may be another, so nothing else may be asked more of.
    """
    refused = pods_refused(live)
    if refused is None or not is_told(live) or now - _still_since(live) < PATIENCE:
        return False
    exceeded = quota.excesses(refused.get("message", ""))
    new = claim_of(live["spec"]["template"]["spec"])
    return bool(exceeded) and any(_makes_quota(old.claim, new, exceeded) for old in beside)


def _makes_quota(old: Claim, new: Claim, exceeded: Sequence[Excess]) -> bool:
    """Once a replica that asked for `old` has ended, a quota that was exceeded lets one be made for `new`."""
    if old.priority_class != new.priority_class:
        return False  # a quota may be for one class alone
    if old.requests == new.requests:  # and so alike in what others add: overhead, the limits of a LimitRange
        return all(each.fits(each.requested, freed=each.requested) for each in exceeded)

    def fits(each: Excess) -> bool:
        asked = max(each.requested, new.requests.get(each.resource, Decimal()))
        return each.fits(asked, freed=old.requests.get(each.resource, Decimal()))

    others = new.requests.keys() - {each.resource for each in exceeded}
    return all(map(fits, exceeded)) and all(
        new.requests[name] <= old.requests.get(name, 0) for name in others
    )


def _still_since(live: Mapping[str, Any]) -> datetime:
    """Since when nothing has become of the Deployment's newest revision: not even a refusal, or progress."""
    times = [
        condition[name]
        for condition in live["status"]["conditions"]
        for type_, name in (("ReplicaFailure", "lastTransitionTime"), ("Progressing", "lastUpdateTime"))
        if condition["type"] == type_ and name in condition
    ]
    return max(map(datetime.fromisoformat, times))
