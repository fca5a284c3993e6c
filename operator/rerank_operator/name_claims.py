"""Which names of a ModelDeployment lead elsewhere, and what is said of it. Pure but for the first list."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from rerank_api import model_names
from rerank_api.conditions import Verdict
from rerank_api.model_names import Claim, Rank, qualified
from rerank_operator import resources
from rerank_operator.claims import ObjectId, Strength
from rerank_operator.listed import Listed
from rerank_operator.resources import Object

Place = tuple[str, str]
"""A name as keys of a namespace ask for it: the namespace, and the name."""

CONDITION: Final = "NamesResolved"
# Two models of one repository are no mistake: whoever asks by the repository gets the older, as documented.
_UNREMARKABLE: Final = frozenset({Rank.REPO, Rank.SHARED_REPO})
_TOLD: Final = 3


def known_names(listed: Listed) -> Callable[[], AsyncIterator[tuple[ObjectId, Mapping[Place, Strength]]]]:
    """What every ModelDeployment claims, to start with."""

    async def known() -> AsyncIterator[tuple[ObjectId, Mapping[Place, Strength]]]:
        async for item in listed.all(resources.MODEL_DEPLOYMENT):
            yield owner(item), strengths(item)

    return known


def owner(live: Object) -> ObjectId:
    return (live["metadata"]["namespace"], live["metadata"]["name"])


def strengths(live: Object) -> dict[Place, Strength]:
    """What a ModelDeployment claims, and how strongly: as the gateway decides too."""
    created = live["metadata"].get("creationTimestamp")
    age = datetime.fromisoformat(created).timestamp() if created else 0.0
    return {(c.namespace, c.name): (c.rank, age, owner(live)) for c in _claims(live)}


def disputes(live: Object, lost: Mapping[Place, ObjectId]) -> list[tuple[Claim, ObjectId]]:
    """The names that were given to the model and lead elsewhere, as `lost` tells, with who has them."""
    return [
        (claim, lost[claim.namespace, claim.name])
        for claim in _claims(live)
        if (claim.namespace, claim.name) in lost and claim.rank not in _UNREMARKABLE
    ]


def verdict(live: Object, lost: Mapping[Place, ObjectId]) -> Verdict:
    """Whether every name that the model was given leads to it. `lost` names who has the others."""
    told = [_taken(claim, live, winner) for claim, winner in disputes(live, lost)]
    if not told:
        message = "every name of the model leads to it"
        return Verdict(type=CONDITION, status="True", reason="Resolved", message=message)
    more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return Verdict(type=CONDITION, status="False", reason="NameTaken", message="; ".join(told[:_TOLD]) + more)


def _taken(claim: Claim, live: Object, winner: ObjectId) -> str:
    namespace, name = owner(live)
    if claim.rank is Rank.QUALIFIED:
        return f'in namespace {claim.namespace} "{claim.name}" leads to a model there that claims this name'
    if claim.namespace == namespace:
        how = "is named so" if claim.name == winner[1] else "had it first"
        way_out = "take it out of spec.aliases here or there"
        return f'"{claim.name}" leads to the ModelDeployment {winner[1]}, which {how}: {way_out}'
    return (
        f'in namespace {claim.namespace} "{claim.name}" leads to another model: ask for this one there as'
        f' "{qualified(namespace, name)}"'
    )


def _claims(live: Object) -> Iterable[Claim]:
    spec = live["spec"]
    return model_names.claims(
        *owner(live),
        aliases=spec.get("aliases") or (),
        repo=model_names.repo_of(spec, live.get("status") or {}),
        shared_with=(spec.get("access") or {}).get("namespaces") or (),
    )
