"""What to apply, given what is wanted and what is there. Pure; called by the reconcilers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rerank_operator.builders.metadata import APPLIED_ANNOTATION, is_owned, with_applied
from rerank_operator.compare import satisfied
from rerank_operator.resources import Object, named


@dataclass(frozen=True, slots=True)
class Step:
    """One apply. `resource_version` is that of the object it was planned from, None for a new one."""

    intent: Object
    resource_version: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in their order, or what stands in the way.

    Attributes:
        steps: what to apply; empty when all is as wanted, or something is in the way.
        removals: children of ours, as they are now, that are not wanted any more.
        taken: children whose name an object of somebody else has, as "Kind name".
        leaving: children of an earlier owner of the same name that garbage collection has not removed yet.
    """

    steps: tuple[Step, ...] = ()
    removals: tuple[Object, ...] = ()
    taken: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not self.steps and not self.removals


def plan(wanted: Sequence[Object], live: Mapping[str, Object | None], *, owner: Object) -> Plan:
    """Plan the children.

    Args:
        wanted: the children as they should be, in the order to apply them.
        live: the objects that have the children's names now, by kind.
        owner: the owner reference that our own children carry.
    """
    steps, taken, leaving = [], [], []
    for intent in wanted:
        there = live.get(intent["kind"])
        if there is None:
            steps.append(Step(with_applied(intent), None))
        elif _is_leaving(there, owner):
            leaving.append(named(intent))
        elif not is_owned(there, owner["uid"]):
            taken.append(named(intent))
        elif not _is_as_wanted(intent, there):
            steps.append(Step(with_applied(intent), there["metadata"]["resourceVersion"]))
    if taken or leaving:
        return Plan(taken=tuple(taken), leaving=tuple(leaving))
    kinds = {intent["kind"] for intent in wanted}
    removals = (
        there
        for kind, there in live.items()
        if kind not in kinds
        and there is not None
        and is_owned(there, owner["uid"])
        and "deletionTimestamp" not in there["metadata"]
    )
    return Plan(steps=tuple(steps), removals=tuple(removals))


def _is_as_wanted(intent: Object, there: Object) -> bool:
    intent = with_applied(intent)
    return there["metadata"].get("annotations", {}).get(APPLIED_ANNOTATION) == intent["metadata"][
        "annotations"
    ][APPLIED_ANNOTATION] and satisfied(intent, there)


def _is_leaving(there: Object, owner: Object) -> bool:
    """It is being deleted, or belongs to a deleted owner of the same name."""
    return "deletionTimestamp" in there["metadata"] or any(
        reference.get("uid") != owner["uid"]
        and reference.get("controller")
        and all(reference.get(part) == owner[part] for part in ("apiVersion", "kind", "name"))
        for reference in there["metadata"].get("ownerReferences", ())
    )
