"""How a new revision takes the place of the old one. Pure; used by the model reconciler.

The Deployment controller does the work. What is chosen here, anew with each look, is its strategy. Whether
there is room beside the old replicas is not asked beforehand but seen: by what the scheduler says of the
first new one.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from rerank_api.model_deployment import RolloutStrategy
from rerank_operator.pods import TEMPLATE_ANNOTATION, Pod
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
    new = [pod for pod in pods if pod.template == template and not pod.deleting]
    vacating = any(pod.deleting for pod in pods)
    return ONE_BY_ONE if not vacating and _no_room(new, beside=old, now=now) else SURGE


def patience_left(pods: Iterable[Pod], *, now: datetime) -> float | None:
    """Seconds until the first pod that finds no node has waited for long enough to be decided about.

    None when there is nothing to wait for: what changes later is told by an event.
    """
    waits = (pod.unschedulable_since + PATIENCE - now for pod in pods if pod.unschedulable_since is not None)
    left = [wait.total_seconds() for wait in waits if wait > timedelta()]
    return min(left, default=None)


def _goes_one_by_one(live: Mapping[str, Any] | None, template: str) -> bool:
    if live is None:
        return False
    annotations = live["spec"]["template"]["metadata"].get("annotations") or {}
    surge = (live["spec"].get("strategy", {}).get("rollingUpdate") or {}).get("maxSurge")
    return surge == 0 and annotations.get(TEMPLATE_ANNOTATION) == template


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
