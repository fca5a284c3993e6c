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
    """The GPUs of this container: how many, and the bytes of the smallest."""

    number: int
    memory: int


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
    return Gpus(len(found), min(found)) if found else None


def _all(nvml: ctypes.CDLL) -> Iterator[int]:
    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return
    for index in range(count.value):
        total = _total(nvml, index)
        if total is not None:
            yield total


def _total(nvml: ctypes.CDLL, index: int) -> int | None:
    device, part = ctypes.c_void_p(), ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != 0:
        return None
    divided, pending = ctypes.c_uint(), ctypes.c_uint()
    mode = nvml.nvmlDeviceGetMigMode(device, ctypes.byref(divided), ctypes.byref(pending))
    if mode == 0 and divided.value:
        if nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, 0, ctypes.byref(part)) != 0:
            return None
        device = part
    memory = _Memory()
    if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0:
        return None
    return int(memory.total)
