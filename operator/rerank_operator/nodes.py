"""Nodes as decisions see them: read from the API server's objects, not judged. Pure; used by observe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from rerank_operator import quantity

# Taints that keep a new pod away. PreferNoSchedule does not.
_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint that keeps pods away that do not tolerate it."""

    key: str
    value: str
    effect: str

    def tolerated_by(self, toleration: Mapping[str, Any]) -> bool:
        """As the scheduler decides it (k8s.io/api/core/v1, Toleration.ToleratesTaint)."""
        if toleration.get("effect", self.effect) not in {self.effect, ""}:
            return False
        if toleration.get("key", self.key) not in {self.key, ""}:
            return False
        return toleration.get("operator") == "Exists" or toleration.get("value", "") == self.value

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Node:
    """A node. `allocatable` is what pods may ask for altogether, by resource."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, Decimal] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


def read(body: Mapping[str, Any]) -> Node:
    """The node in an object of the API server."""
    taints = body.get("spec", {}).get("taints") or ()
    return Node(
        name=body["metadata"]["name"],
        labels=body["metadata"].get("labels") or {},
        allocatable={
            name: quantity.parse(amount)
            for name, amount in (body.get("status", {}).get("allocatable") or {}).items()
        },
        taints=tuple(
            Taint(taint["key"], taint.get("value", ""), taint["effect"])
            for taint in taints
            if taint["effect"] in _EFFECTS
        ),
    )
