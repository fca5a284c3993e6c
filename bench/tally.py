"""What the operator asked of the API server, counted from the audit log as it grows."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

READS: Final = frozenset({"get", "list", "watch"})
# What is only tried changes nothing.
TRIES: Final = frozenset({"try"})
WRITES: Final = frozenset({"create", "patch", "update", "delete"})


@dataclass
class Tally:
    """Requests by verb and resource. `user` is who asked; what it asked about Leases is left out.

    With `namespaces` only what is in them counts: beside other objects.
    """

    log: Path
    user: str
    namespaces: frozenset[str] | None = None
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    written_at: float = 0.0
    """When this saw a write last, in monotonic seconds."""
    _offset: int = 0

    @property
    def writes(self) -> int:
        """Those that were carried out. A dry run changes nothing."""
        return sum(count for (verb, _), count in self.requests.items() if verb in WRITES)

    def count(self, verb: str) -> int:
        """Requests with this verb, about anything."""
        return sum(count for (asked, _), count in self.requests.items() if asked == verb)

    def skip(self) -> "Tally":
        """Count from now on."""
        self._offset = self.log.stat().st_size
        self.requests.clear()
        return self

    def read(self) -> "Tally":
        """Take in what was logged since."""
        mark = f'"username":"{self.user}"'.encode()
        before = self.writes
        with self.log.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                if mark in line:
                    self._note(orjson.loads(line))
        if self.writes > before:
            self.written_at = time.monotonic()
        return self

    def _note(self, event: dict[str, object]) -> None:
        about = event.get("objectRef")
        if event["stage"] != "ResponseComplete" or not isinstance(about, dict):
            return
        resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
        if not resource or resource == "leases":
            return
        if self.namespaces is not None and about.get("namespace") not in self.namespaces:
            return
        verb = str(event["verb"])
        if "dryRun=" in str(event["requestURI"]):
            verb = "try"
        status = event.get("responseStatus")
        code = status["code"] if isinstance(status, dict) else 0
        if verb not in READS and code >= 400:
            verb = f"{code}"
        self.requests[verb, resource] += 1
