"""Who claims which name, and who has it: hashes of APIKeys, names of ModelDeployments. For their reconcilers.

An index in memory: each look notes what its object claims, and hears who else is concerned. It is filled from
one list before the first decision, so that a restart tells nobody of a conflict that is not there, or that an
old one is over.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

ObjectId = tuple[str, str]
"""Namespace and name of the object that claims."""

Strength = tuple[Any, ...]
"""The smallest of a name's claims has it."""

Name = TypeVar("Name", bound=Hashable)


@dataclass(slots=True)
class Claims(Generic[Name]):
    """See the module. `known` lists what all objects claim; asked once."""

    known: Callable[[], AsyncIterator[tuple[ObjectId, Mapping[Name, Strength]]]]
    _claimed: dict[ObjectId, Mapping[Name, Strength]] = field(default_factory=dict)
    _claimants: dict[Name, dict[ObjectId, Strength]] = field(default_factory=dict)
    _filled: bool = False
    _filling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fill(self) -> None:
        """Know what there is. Raises what `known` raises; the next call tries again."""
        async with self._filling:
            if self._filled:
                return
            async for owner, names in self.known():
                if owner not in self._claimed:  # a look that came first knows better
                    self.note(owner, names)
            self._filled = True

    def note(self, owner: ObjectId, names: Mapping[Name, Strength]) -> set[ObjectId]:
        """`owner` claims these names now, and no others. Returns for whom that changed who has a name."""
        before = self._claimed.pop(owner, {})
        if names:
            self._claimed[owner] = names
        concerned: set[ObjectId] = set()
        for name in before.keys() | names.keys():
            if before.get(name) == names.get(name):
                continue
            claimants = self._claimants.setdefault(name, {})
            had = _strongest(claimants)
            claimants.pop(owner, None)
            if name in names:
                claimants[owner] = names[name]
            if owner in {had, _strongest(claimants)}:
                concerned |= claimants.keys()
            if not claimants:
                del self._claimants[name]
        return concerned - {owner}

    def lost(self, owner: ObjectId) -> dict[Name, ObjectId]:
        """The names that `owner` claims and somebody else has, with who that is."""
        found: dict[Name, ObjectId] = {}
        for name in self._claimed.get(owner, ()):
            winner = _strongest(self._claimants[name])
            if winner is not None and winner != owner:
                found[name] = winner
        return found


def _strongest(claimants: Mapping[ObjectId, Strength]) -> ObjectId | None:
    return min(claimants, key=claimants.__getitem__, default=None)
