"""Headers of safetensors files, whole and damaged."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rerank_runtime import safetensors_header
from rerank_runtime.failure import Failure, Reason


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors: dict[str, Any] = {"a": np.zeros((3, 5), np.float32), "b": np.zeros((7,), np.float16)}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_reads_what_a_file_holds(weights: Path) -> None:
    header = safetensors_header.read(weights)
    assert header.shapes == {"a": (3, 5), "b": (7,)}
    assert header.parameters_by_dtype == {"F32": 15, "F16": 7}
    assert header.parameters == 22
    assert header.size == weights.stat().st_size


@pytest.mark.parametrize("keep", [0, 4, 8, 20, -1])
def test_a_file_cut_short_is_refused(weights: Path, keep: int) -> None:
    weights.write_bytes(weights.read_bytes()[:keep])
    _refused(weights)


def test_a_file_that_is_too_long_is_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes() + b"\0")
    _refused(weights)


def _file(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>not found</html>",
        _file(b"[1]\n"),
        _file(b"nope"),
        _file(b"[" * 100_000),
        _file(json.dumps({"a": {"shape": [1]}}).encode()),
        _file(b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 0]}}'),
        _file(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}'),
        _file(b'{"a": {"dtype": "F32", "shape": [-4, 2], "data_offsets": [0, 0]}}'),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    _refused(path)


def _refused(path: Path) -> None:
    with pytest.raises(Failure) as refusal:
        safetensors_header.read(path)
    assert refusal.value.reason == Reason.WEIGHTS_TRUNCATED
    assert path.name in refusal.value.message
