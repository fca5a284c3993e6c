"""Catalog entries as the reconciler needs them: read live, and who uses which.

Entries are small and few, and are read anew with each look. A change of an entry wakes its users: no index of
kopf's is needed for it, since each look notes what it used, and the operator's start looks at every model.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Protocol

from pydantic import ValidationError

from rerank_api.catalog_model import CatalogModel
from rerank_operator import resources
from rerank_operator.cluster import Cluster
from rerank_operator.resources import Object
from rerank_operator.situation import Obstacle

ModelId = tuple[str, str]
"""Namespace and name of a ModelDeployment."""


@dataclass(slots=True)
class Users:
    """Which ModelDeployments named which entry when they were last looked at."""

    _entries: dict[ModelId, str] = field(default_factory=dict)
    _users: defaultdict[str, set[ModelId]] = field(default_factory=lambda: defaultdict(set))

    def note(self, model: ModelId, entry: str | None) -> None:
        """`model` uses `entry` now, or none. Told before the entry is read, so that no change goes unseen."""
        before = self._entries.pop(model, None)
        if before is not None:
            self._users[before].discard(model)
            if not self._users[before]:
                del self._users[before]
        if entry is not None:
            self._entries[model] = entry
            self._users[entry].add(model)

    def of(self, entry: str) -> frozenset[ModelId]:
        """The users of `entry`."""
        return frozenset(self._users.get(entry, ()))


class Entries(Protocol):
    """Where entries are looked up. Both methods raise `ApiError` when that is not possible now."""

    async def get(self, name: str) -> Object | None:
        """The entry of this name."""

    async def missing(self, name: str) -> Obstacle:
        """What to say of a name that no entry has."""


@dataclass(frozen=True, slots=True)
class CatalogModels:
    """The CatalogModels of the cluster."""

    api: Cluster

    async def get(self, name: str) -> Object | None:
        return await self.api.get(resources.CATALOG_MODEL, None, name)

    async def missing(self, name: str) -> Obstacle:
        entries = self.api.pages(resources.CATALOG_MODEL, None, metadata_only=True)
        known = [item["metadata"]["name"] async for item in entries]
        everything = "`kubectl get catalogmodels` lists all that there are"
        return not_found(name, known, everything=everything)


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """The entries of the installation by name, for an operator that may not read CatalogModels."""

    bodies: Mapping[str, Object]

    async def get(self, name: str) -> Object | None:
        return self.bodies.get(name)

    async def missing(self, name: str) -> Obstacle:
        known = ", ".join(sorted(self.bodies))
        everything = f"this operator has rights in namespaces only and knows {known}"
        return not_found(name, self.bodies, everything=everything)


async def read(entries: Entries, name: str) -> CatalogModel | Obstacle:
    """The entry, or why it cannot be used.

    Raises:
        ApiError: it could not be looked for; nothing must be decided then.
    """
    body = await entries.get(name)
    if body is None:
        return await entries.missing(name)
    try:
        return CatalogModel.parse(body)
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)
        )
        message = f"this version of the operator cannot read the catalog entry {name}: {where}"
        return Obstacle("CatalogModelUnreadable", message[:1024])


def not_found(name: str, known: Iterable[str], *, everything: str) -> Obstacle:
    """There is no such entry: name those that were perhaps meant; `everything` says which there are."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    way_out = (
        f"{hint}{everything}"
        if names
        else "the catalog is empty (catalog.install of the chart brings the built-in entries)"
    )
    return Obstacle("CatalogModelNotFound", f"there is no catalog entry {name}: {way_out}")
