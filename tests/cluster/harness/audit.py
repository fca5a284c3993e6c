"""Reading the API server's audit log: who did what, and what came of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Event:
    """One request that the API server has answered."""

    user: str
    agent: str
    verb: str
    group: str
    resource: str
    """With its subresource, as RBAC writes it: `modeldeployments/status`."""
    namespace: str
    name: str
    code: int

    def __str__(self) -> str:
        return f"{self.verb} {self.group}/{self.resource} {self.namespace}/{self.name} -> {self.code}"


@dataclass(frozen=True)
class AuditLog:
    """The log of one API server, one JSON event a line."""

    path: Path

    def position(self) -> int:
        """Return where the log ends now, for `since`."""
        return self.path.stat().st_size

    def since(self, position: int, *, user: str) -> Iterator[Event]:
        """Yield what `user` did on resources after that position."""
        with self.path.open("rb") as log:
            log.seek(position)
            for line in log:
                if not line.endswith(b"\n"):
                    return  # being written
                if user.encode() not in line:
                    continue
                record = json.loads(line)
                if record["user"]["username"] == user and "objectRef" in record:
                    yield _event(record)


def _event(record: dict[str, Any]) -> Event:
    what = record["objectRef"]
    resource = what.get("resource", "")
    if "subresource" in what:
        resource = f"{resource}/{what['subresource']}"
    return Event(
        user=record["user"]["username"],
        agent=record.get("userAgent", ""),
        verb=record["verb"],
        group=what.get("apiGroup", ""),
        resource=resource,
        namespace=what.get("namespace", ""),
        name=what.get("name", ""),
        code=record.get("responseStatus", {}).get("code", 0),
    )
