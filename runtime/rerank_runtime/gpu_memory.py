"""How much memory the GPU of this container has, asked of the driver itself (NVML), without CUDA or torch."""

from __future__ import annotations

import ctypes

_LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    """nvmlMemory_t: bytes."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def read(library: str = _LIBRARY) -> int | None:
    """Bytes of the first GPU, or of its first slice where it is divided (MIG); None where there is none.

    A device plugin shows a container its own GPUs alone, so the first is the one that vLLM takes.
    """
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return None
    try:
        if nvml.nvmlInit_v2() != 0:
            return None
        try:
            return _first(nvml)
        finally:
            nvml.nvmlShutdown()
    except AttributeError:  # a driver from before these calls
        return None


def _first(nvml: ctypes.CDLL) -> int | None:
    device, part = ctypes.c_void_p(), ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) != 0:
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
