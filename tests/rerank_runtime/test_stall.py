"""Telling an engine that is stuck from one that is busy."""

from __future__ import annotations

import pytest

from rerank_runtime.options import Device
from rerank_runtime.stall import Mark, worked


@pytest.mark.parametrize(
    ("before", "after", "device", "did"),
    [
        (Mark(0, 5, 1.0), Mark(60, 6, 1.0), Device.CUDA, True),
        (Mark(0, 5, 1.0), Mark(60, 5, 1.0), Device.CUDA, False),
        # A thread that waits for a GPU that hangs keeps a core busy.
        (Mark(0, 5, 1.0), Mark(60, 5, 61.0), Device.CUDA, False),
        # One step of a large model takes minutes on a processor.
        (Mark(0, 5, 1.0), Mark(60, 5, 61.0), Device.CPU, True),
        (Mark(0, 5, 1.0), Mark(60, 5, 1.5), Device.CPU, False),
        # Nothing is known.
        (Mark(0, None, 1.0), Mark(60, 5, 1.0), Device.CUDA, True),
        (Mark(0, 5, 1.0), Mark(60, None, 1.0), Device.CUDA, True),
    ],
)
def test_work(before: Mark, after: Mark, device: Device, did: bool) -> None:
    assert worked(before, after, device) is did
