"""What a ResourceQuota refused, read from the API server's words. Pure; used by rollout.

k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go, checkRequest
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from rerank_operator import quantity

_EXCEEDED: Final = re.compile(r"exceeded quota: \S+, requested: (\S+), used: (\S+), limited: (\S+)")
# A replica is limited to the memory that it requests: see builders.deployment. What else it is limited to, a
# LimitRange decides.
_PREFIX: Final = re.compile(r"^(requests\.|limits\.(?=memory$)|count/)")


@dataclass(frozen=True, slots=True)
class Excess:
    """Of one resource, named as in a pod's requests where it is one: asked for, in use, and allowed."""

    resource: str
    requested: Decimal
    used: Decimal
    limited: Decimal

    def fits(self, asked: Decimal, *, freed: Decimal) -> bool:
        """Whether so much would be granted once so much less is in use."""
        return self.used - freed + asked <= self.limited


def excesses(message: str) -> Sequence[Excess]:
    """What was asked for in excess; empty where no quota was exceeded."""
    found = _EXCEEDED.search(message)
    if found is None:
        return ()
    requested, used, limited = (_amounts(part) for part in found.groups())
    return [
        Excess(_PREFIX.sub("", name), amount, used[name], limited[name])
        for name, amount in requested.items()
        if name in used and name in limited
    ]


def _amounts(text: str) -> dict[str, Decimal]:
    """`a=1,b=2Gi`; none where it is something else."""
    try:
        return {
            name: quantity.parse(amount)
            for name, _, amount in (part.partition("=") for part in text.rstrip(",").split(","))
        }
    except ValueError:
        return {}
