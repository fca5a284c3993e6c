"""Files for vLLM's processes that nobody else can read or replace."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from rerank_runtime import workspace
from rerank_runtime.failure import Failure, Reason


def test_private_and_gone_afterwards() -> None:
    with workspace.workspace() as directory:
        path = workspace.write(directory / "a", "text\r\n\n")
        assert path.read_bytes() == b"text\r\n\n"
        assert (directory.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert not directory.exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("somebody's")
    (tmp_path / "a").symlink_to(target)
    with pytest.raises(Failure) as refusal:
        workspace.write(tmp_path / "a", "ours")
    assert refusal.value.reason == Reason.INTERNAL_ERROR
    assert target.read_text() == "somebody's"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(Failure) as refusal:
        workspace.write(tmp_path / "a", "text")
    assert (refusal.value.reason, refusal.value.retriable) == (Reason.DISK_FULL, True)
