"""Which GPUs this container has, asked of the driver itself (NVML), without CUDA or torch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

_LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    """nvmlMemory_t: bytes."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class Gpus(NamedTuple):
    """The GPUs of this container."""

    number: int
    memory: int
    """Bytes of the smallest."""
    capability: tuple[int, int] | None
    """CUDA's compute capability of the oldest; None where the driver does not tell it."""


class _Gpu(NamedTuple):
    memory: int
    capability: tuple[int, int] | None


def read(library: str = _LIBRARY) -> Gpus | None:
    """The GPUs, or of those that are divided (MIG) the first slice each; None where there are none.

    A device plugin or driver shows a container its own GPUs alone.
    """
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return None
    try:
        if nvml.nvmlInit_v2() != 0:
            return None
        try:
            found = list(_all(nvml))
        finally:
            nvml.nvmlShutdown()
    except AttributeError:  # a driver from before these calls
        return None
    if not found:
        return None
    told = [gpu.capability for gpu in found if gpu.capability is not None]
    return Gpus(len(found), min(gpu.memory for gpu in found), min(told, default=None))


def _all(nvml: ctypes.CDLL) -> Iterator[_Gpu]:
    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return
    for index in range(count.value):
        gpu = _one(nvml, index)
        if gpu is not None:
            yield gpu


def _one(nvml: ctypes.CDLL, index: int) -> _Gpu | None:
    device, part = ctypes.c_void_p(), ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != 0:
        return None
    major, minor = ctypes.c_int(), ctypes.c_int()
    told = nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor)) == 0
    divided, pending = ctypes.c_uint(), ctypes.c_uint()
    mode = nvml.nvmlDeviceGetMigMode(device, ctypes.byref(divided), ctypes.byref(pending))
    if mode == 0 and divided.value:
        if nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, 0, ctypes.byref(part)) != 0:
            return None
        device = part
    memory = _Memory()
    if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0:
        return None
    return _Gpu(int(memory.total), (major.value, minor.value) if told else None)
