"""Which versions of objects are our own writing, so that their events ask for no look. Filled by `cluster`.

A look does all that there is to do from what it saw, and what it writes holds only while that is still so
(`resourceVersion`): the event of such a write is no news. Everything else that becomes of the object, before
or after, has a version and an event of its own. This is not so of usage, say: it is written onto what no look
has seen. (Versions come again only where etcd was restored from a copy; then the resync looks.)
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Version = tuple[str, str]
"""uid and resourceVersion of an object."""

# Events come within seconds of the write. One that comes too late costs a look in vain.
_REMEMBERED: Final = 4096


@dataclass(slots=True)
class Echoes:
    """See the module."""

    _versions: OrderedDict[Version, None] = field(default_factory=OrderedDict)

    def note(self, written: Mapping[str, Any]) -> None:
        """The API server answered a write of ours with this object."""
        self._versions[version_of(written["metadata"])] = None
        if len(self._versions) > _REMEMBERED:
            self._versions.popitem(last=False)

    def __contains__(self, version: object) -> bool:
        return version in self._versions


def version_of(metadata: Mapping[str, Any]) -> Version:
    """Of an object with this metadata."""
    return metadata.get("uid", ""), metadata.get("resourceVersion", "")
