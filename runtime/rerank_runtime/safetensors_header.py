"""Headers of safetensors files: what a file holds and whether it is whole, without reading its weights.

Format: 8 bytes little-endian header length, a JSON header, then the tensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerank_runtime.failure import Failure, Reason

# The format's own limit on its header.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Header:
    """What one safetensors file holds."""

    size: int
    """Length of the file in bytes."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of each tensor by name."""
    parameters_by_dtype: dict[str, int] = field(default_factory=dict)
    """Number of parameters by the format's dtype name (F32, F16, BF16…)."""

    @property
    def parameters(self) -> int:
        return sum(self.parameters_by_dtype.values())


def read(path: Path) -> Header:
    """Read a file's header and check that the file is as long as it says.

    Raises:
        Failure: `WeightsTruncated` where the file is shorter or longer than its header says, or no
        safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise _truncated(path, f"it has {size} bytes, too few to be a safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise _truncated(path, f"it has {size} bytes and its header alone claims {length}")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        expected = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        shapes = {name: _shape(entry["shape"]) for name, entry in tensors.items()}
        counts = _count(tensors)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _truncated(path, "its header is not that of a safetensors file") from error
    if size != expected:
        raise _truncated(path, f"it has {size} bytes where its header says {expected}")
    return Header(size=size, shapes=shapes, parameters_by_dtype=counts)


def _shape(sizes: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in sizes)
    if any(n < 0 for n in shape):
        raise ValueError("a negative size")
    return shape


def _count(tensors: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in tensors.values():
        dtype = str(entry["dtype"])
        counts[dtype] = counts.get(dtype, 0) + math.prod(int(n) for n in entry["shape"])
    return counts


def _truncated(path: Path, what: str) -> Failure:
    message = f"The weights file {path.name} is damaged: {what}."
    return Failure(Reason.WEIGHTS_TRUNCATED, message + " Upload it again, or choose another revision.")
