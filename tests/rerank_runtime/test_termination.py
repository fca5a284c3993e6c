"""The container's last words."""

from __future__ import annotations

import json
from pathlib import Path

from rerank_runtime import termination
from rerank_runtime.failure import Failure, Reason


def test_last_words(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    termination.write(Failure(Reason.DISK_FULL, "full", retriable=True), path)
    assert not path.exists()
    path.touch()
    termination.write(Failure(Reason.DISK_FULL, "full", retriable=True), path)
    assert json.loads(path.read_bytes()) == {"reason": "DiskFull", "message": "full", "retriable": True}


def test_long_last_words_stay_json() -> None:
    encoded = termination.encode(Failure(Reason.ENGINE_FAILED, "é" * 5000))
    assert len(encoded) <= 4096
    assert json.loads(encoded)["message"].endswith("…")
