"""What the pod is doing, as `GET /status` on port 8081 tells it. The operator reads it while a pod is not
ready.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from rerank_runtime.failure import Failure
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.verification.verdict import Result


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
    file: str | None = None
    """The GGUF file that they were made from, if they were."""

    @classmethod
    def read(cls, path: Path) -> Source | None:
        """What fetch wrote down in a source.json; None where there is none that can be read."""
        try:
            content = json.loads(path.read_bytes())
            file = content.get("gguf", {}).get("file")
            return cls(str(content["repo"]), str(content["revision"]), None if file is None else str(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def as_json(self) -> dict[str, str]:
        body = {"repo": self.repo, "revision": self.revision}
        return body if self.file is None else body | {"file": self.file}


@dataclass
class Status:
    """The container's state. Written by the one task that does the work, read by the status server."""

    phase: Phase
    reason: str = ""
    message: str = ""
    source: Source | None = None
    download: Download | None = None
    plan: ServePlan | None = None
    identity: str | None = None
    """Digest of what is served, by `rerank_runtime.identity`."""
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
            body["model"] = _model(self.plan, self.identity)
        if self.verification:
            body["verification"] = self.verification.as_json()
        body["inFlight"] = self.in_flight
        return body


def _model(plan: ServePlan, identity: str | None) -> dict[str, Any]:
    scoring = {
        "method": str(plan.method),
        "range": plan.score_range,
        "instruction": plan.instruction,
        "templateSha256": plan.template_sha256,
        "planDigest": identity,
        "pointwise": plan.pointwise,
        "maxDocuments": plan.max_documents,
    }
    truncation = {
        "maxTokensPerDocument": plan.truncation.max_tokens_per_document,
        "maxTokensPerQuery": plan.truncation.max_tokens_per_query,
        "onOverflow": str(plan.truncation.on_overflow),
    }
    return {
        "family": plan.family,
        "architecture": plan.architecture,
        "parameters": plan.parameters,
        "weightsBytes": plan.weights_bytes,
        "contextLength": plan.context_length,
        "dtype": plan.dtype,
        "memoryBytes": plan.memory_bytes,
        "prefixCaching": plan.prefix_caching,
        "remoteCode": plan.remote_code,
        "scoring": _known(scoring),
        "truncation": _known(truncation),
    }


def _known(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
