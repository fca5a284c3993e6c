"""Headers of safetensors files: what a file holds and whether it is whole, without reading its weights; and
how one begins that is written.

Format: 8 bytes little-endian header length, a JSON header, then the tensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerank_runtime.failure import Failure, Reason

# The format's own limit on its header.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    dtype: str
    """The format's name: F32, F16, BF16…"""
    shape: tuple[int, ...]
    size: int
    """Bytes."""
    start: int = 0
    """Where it begins in its file."""


@dataclass(frozen=True)
class Header:
    """What one safetensors file holds."""

    size: int
    """Length of the file in bytes."""
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @property
    def parameters_by_dtype(self) -> dict[str, int]:
        """Number of parameters by dtype."""
        counts: dict[str, int] = {}
        for tensor in self.tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + math.prod(tensor.shape)
        return counts

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
        entries = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
        tensors = {name: _tensor(entry, 8 + length) for name, entry in entries.items()}
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _truncated(path, "its header is not that of a safetensors file") from error
    expected = max((tensor.start + tensor.size for tensor in tensors.values()), default=8 + length)
    if size != expected:
        raise _truncated(path, f"it has {size} bytes where its header says {expected}")
    return Header(size, tensors)


def encode(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """The beginning of a file that holds these tensors one after another, wherever they begin now."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors:
        end = at + tensor.size
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    content = json.dumps(entries, separators=(",", ":")).encode()
    # Tensors begin at a multiple of eight, as the format's own writer has it.
    content += b" " * (-len(content) % 8)
    return struct.pack("<Q", len(content)) + content


def _tensor(entry: dict[str, Any], data: int) -> Tensor:
    shape = tuple(int(n) for n in entry["shape"])
    begin, end = (int(n) for n in entry["data_offsets"])
    if any(n < 0 for n in shape) or not 0 <= begin <= end:
        raise ValueError("a negative size")
    return Tensor(str(entry["dtype"]), shape, end - begin, data + begin)


def _truncated(path: Path, what: str) -> Failure:
    message = f"The weights file {path.name} is damaged: {what}."
    return Failure(Reason.WEIGHTS_TRUNCATED, message + " Upload it again, or choose another revision.")
