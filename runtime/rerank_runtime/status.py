"""What the pod is doing, as `GET /status` on port 8081 tells it. The operator reads it while a pod is not
ready.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rerank_runtime.failure import Failure
from rerank_runtime.plan import ServePlan
from rerank_runtime.verification import Result


class Phase(StrEnum):
    """Where a container is on its way to serving."""

    DOWNLOADING = "Downloading"
    STARTING = "Starting"
    VERIFYING = "Verifying"
    READY = "Ready"
    DRAINING = "Draining"
    FAILED = "Failed"


@dataclass(frozen=True)
class Download:
    """How far a download is; sizes in bytes."""

    bytes: int
    total_bytes: int
    eta_seconds: int | None
    """Seconds left at the speed of the last half minute; None before it is known."""

    def as_json(self) -> dict[str, int]:
        body = {"bytes": self.bytes, "totalBytes": self.total_bytes}
        return body if self.eta_seconds is None else body | {"etaSeconds": self.eta_seconds}


@dataclass(frozen=True)
class Source:
    """Where the weights came from; the revision is a commit of 40 hex digits."""

    repo: str
    revision: str

    def as_json(self) -> dict[str, str]:
        return {"repo": self.repo, "revision": self.revision}


@dataclass
class Status:
    """The container's state. Written by the one task that does the work, read by the status server."""

    phase: Phase
    reason: str = ""
    message: str = ""
    source: Source | None = None
    download: Download | None = None
    plan: ServePlan | None = None
    verification: Result | None = None
    in_flight: int = 0
    alive: bool = field(default=True)
    """What /livez answers: whether a restart could not help."""

    @property
    def ready(self) -> bool:
        """What /readyz answers."""
        return self.phase is Phase.READY

    def fail(self, failure: Failure) -> None:
        """Show a failure."""
        self.phase, self.reason, self.message = Phase.FAILED, str(failure.reason), failure.message

    def enter(self, phase: Phase) -> None:
        """Go on to a phase; what was wrong before is past."""
        self.phase, self.reason, self.message = phase, "", ""

    def as_json(self) -> dict[str, Any]:
        """The body of /status; what is not known yet is left out."""
        body: dict[str, Any] = {"phase": str(self.phase), "reason": self.reason, "message": self.message}
        if self.source:
            body["source"] = self.source.as_json()
        if self.download:
            body["download"] = self.download.as_json()
        if self.plan:
            body["model"] = {
                "family": self.plan.family,
                "architecture": self.plan.architecture,
                "parameters": self.plan.parameters,
                "weightsBytes": self.plan.weights_bytes,
                "contextLength": self.plan.context_length,
                "scoring": {"method": str(self.plan.method), "range": self.plan.score_range},
            }
        if self.verification:
            body["verification"] = self.verification.as_json()
        body["inFlight"] = self.in_flight
        return body
