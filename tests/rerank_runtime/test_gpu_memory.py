"""Reading a GPU's memory from the driver's library, which stands in here: no GPU is needed."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from rerank_runtime import gpu_memory

WHOLE, SMALLER, SLICE = 80 * 2**30, 40 * 2**30, 10 * 2**30
AMPERE, TURING = (8, 6), (7, 5)


class Library:
    """NVML as far as it is asked; handles are numbers."""

    def __init__(
        self, *, gpus: int = 1, divided: bool = False, slices: int = 1, capabilities: bool = True
    ) -> None:
        self.gpus, self.divided, self.slices, self.capabilities = gpus, divided, slices, capabilities
        self.running = 0

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML
        self.running += 1
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802 - NVML
        self.running -= 1
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802 - NVML
        count._obj.value = self.gpus
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802 - NVML
        handle._obj.value = 10 + index
        return 0 if index < self.gpus else 2

    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> int:  # noqa: N802 - NVML
        major._obj.value, minor._obj.value = {10: AMPERE, 11: TURING}[device.value]
        return 0 if self.capabilities else 3

    def nvmlDeviceGetMigMode(self, _device: Any, current: Any, _pending: Any) -> int:  # noqa: N802 - NVML
        current._obj.value = int(self.divided)
        return 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, _device: Any, index: int, handle: Any) -> int:  # noqa: N802 - NVML
        handle._obj.value = 1
        return 0 if index < self.slices else 6

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:  # noqa: N802 - NVML
        memory._obj.total = {1: SLICE, 10: WHOLE, 11: SMALLER}[device.value]
        return 0


@pytest.mark.parametrize(
    ("library", "found"),
    [
        (Library(), (1, WHOLE, AMPERE)),
        (Library(gpus=2), (2, SMALLER, TURING)),
        (Library(gpus=2, capabilities=False), (2, SMALLER, None)),
        (Library(gpus=0), None),
        (Library(divided=True), (1, SLICE, AMPERE)),
        (Library(divided=True, slices=0), None),
    ],
)
def test_how_many_gpus_there_are_and_what_the_smallest_and_the_oldest_has(
    monkeypatch: pytest.MonkeyPatch, library: Library, found: tuple[int, int, tuple[int, int] | None] | None
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    assert gpu_memory.read() == found
    assert library.running == 0


def test_an_old_library_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_memory.read("libno-such-library.so.1") is None
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert gpu_memory.read() is None
