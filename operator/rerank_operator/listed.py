"""Resources as they were listed at the start: the first look at each need not read it again.

The list is read for the claims, before the first look; thousands of looks follow. What is kept of it is as
old as what watches told, and is used like that: a write of a look holds only for the version that the look
saw, and an event that tells of another version ends what was kept.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from rerank_operator.cluster import Cluster
from rerank_operator.echoes import Version, version_of
from rerank_operator.resources import Object, Resource


@dataclass(slots=True)
class Listed:
    """See the module. `namespaces` are the watched ones; none: all."""

    api: Cluster
    namespaces: tuple[str, ...]
    _kept: dict[tuple[str, str, str], tuple[Version, bytes]] = field(default_factory=dict)
    _told: dict[str, dict[tuple[str, str, str], Version]] = field(default_factory=dict)
    """By kind, while it is listed: all pages are of one moment, and what is told then may be newer."""

    async def all(self, resource: Resource) -> AsyncIterator[Object]:
        """Every one that there is."""
        self._told[resource.kind] = {}
        try:
            for namespace in self.namespaces or (None,):
                async for item in self.api.pages(resource, namespace):
                    self._keep(resource, item)
                    yield item
        finally:
            del self._told[resource.kind]

    async def read(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """A resource, or None where there is none: as it was listed, the first time, then as it is."""
        kept = self._kept.pop((resource.kind, namespace, name), None)
        if kept is not None:
            found: Object = json.loads(kept[1])
            return found
        return await self.api.get(resource, namespace, name)

    def told(self, key: tuple[str, str, str], version: Version) -> None:
        """An event told of this version of the resource with this kind, namespace and name."""
        if key[0] in self._told:
            self._told[key[0]][key] = version
        if key in self._kept and self._kept[key][0] != version:
            del self._kept[key]

    def _keep(self, resource: Resource, item: Object) -> None:
        metadata = {part: value for part, value in item["metadata"].items() if part != "managedFields"}
        key, version = (resource.kind, metadata["namespace"], metadata["name"]), version_of(metadata)
        if self._told[resource.kind].get(key, version) != version:
            return
        # As text it takes a tenth of the memory, and nobody shares parts of it.
        kept = json.dumps({**item, "metadata": metadata}, separators=(",", ":")).encode()
        self._kept[key] = (version, kept)
