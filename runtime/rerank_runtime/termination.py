"""The container's last words: a file that the kubelet copies into the pod's status."""

from __future__ import annotations

import json
from pathlib import Path

from rerank_runtime.failure import Failure

PATH = Path("/dev/termination-log")
# The kubelet keeps this many bytes of it (kubernetes, pkg/kubelet/container:
# MaxContainerTerminationMessageLength).
LIMIT = 4096


def encode(failure: Failure) -> bytes:
    """The failure as JSON that is still valid after the kubelet's cut."""
    body = failure.as_json()
    encoded = json.dumps(body).encode()
    while len(encoded) > LIMIT:
        body["message"] = body["message"][: len(body["message"]) * 3 // 4] + "…"
        encoded = json.dumps(body).encode()
    return encoded


def write(failure: Failure, path: Path = PATH) -> None:
    """Leave the failure for the kubelet; outside Kubernetes there is no such file and nothing is written."""
    if path.exists():
        path.write_bytes(encode(failure))
