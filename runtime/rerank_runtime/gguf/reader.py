"""The head of a GGUF file: its metadata and where its tensors lie, read without trusting a single number in
it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package has a reader too, which
follows whatever counts a file claims and keeps each array element as an object of its own; this one stops at
limits that no reranker comes near. Types and block sizes are the package's.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.gguf.metadata import Metadata, Value

_VERSIONS = (2, 3)
# Limits. The largest vocabularies have 262 thousand tokens and 515 thousand merges, in less than 20 MB.
MAX_HEAD_BYTES = 128 * 2**20
MAX_STRINGS = 2**20
_MAX_PAIRS = 4096
_MAX_TENSORS = 16384
_MAX_NAME_BYTES = 1024
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 4096

_SCALARS = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT64: "<d",
    GGUFValueType.BOOL: "<?",
}


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in a file."""

    name: str
    shape: tuple[int, ...]
    """In the order of PyTorch, the slowest dimension first: the file has it the other way round."""
    type: GGMLQuantizationType
    offset: int
    """From the file's beginning, in bytes."""
    size: int
    """In bytes."""

    @property
    def row(self) -> int:
        """Elements in one row: what a step of the first dimension covers."""
        return math.prod(self.shape[1:])


@dataclass(frozen=True)
class GgufFile:
    """What a file says about itself."""

    path: Path
    metadata: Metadata
    tensors: dict[str, Tensor]


def read(path: Path) -> GgufFile:
    """Read a file's head and check that all of its tensors are there.

    Raises:
        Failure: `WeightsTruncated` where it is cut short, damaged or no GGUF file; `UnsupportedArchitecture`
            where it holds a type of tensor that is not known.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = _Head(path, file, min(size, MAX_HEAD_BYTES))
        try:
            return _read(path, head, size)
        except UnicodeDecodeError as error:
            raise damaged(path, "a text in its metadata is not UTF-8") from error


def damaged(path: Path, what: str) -> Failure:
    """What a file that cannot be right is refused with."""
    return Failure(
        Reason.WEIGHTS_TRUNCATED,
        f"The weights file {path.name} is damaged: {what}. Upload it again, or choose another file or "
        "revision.",
    )


class _Head:
    """Reads on from the beginning of a file, and never further than its head may reach."""

    def __init__(self, path: Path, file: BinaryIO, limit: int) -> None:
        self.path = path
        self.at = 0
        self._file = file
        self._limit = limit
        self._strings = 0

    def bytes(self, count: int) -> bytes:
        if count > self._limit - self.at:
            raise damaged(self.path, f"its head ends after {self._limit} bytes and wants {count} more")
        content = self._file.read(count)
        if len(content) < count:
            raise damaged(self.path, "it became shorter while it was read")
        self.at += count
        return content

    def number(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self.bytes(struct.calcsize(layout)))
        return int(value)

    def count(self, layout: str, what: str, most: int) -> int:
        value = self.number(layout)
        if value > most:
            raise damaged(self.path, f"it claims {value} {what}, more than the {most} that any model has")
        return value

    def text(self, most: int = MAX_HEAD_BYTES) -> str:
        return self.bytes(self.count("<Q", "bytes of one text", most)).decode()

    def value(self) -> Value:
        kind = self._kind()
        if kind is GGUFValueType.STRING:
            return self.text()
        if kind is not GGUFValueType.ARRAY:
            scalar: int | float | bool = struct.unpack(
                _SCALARS[kind], self.bytes(struct.calcsize(_SCALARS[kind]))
            )[0]
            return scalar
        element = self._kind()
        length = self.number("<Q")
        if element is GGUFValueType.ARRAY:
            raise damaged(self.path, "its metadata has lists of lists")
        if element is GGUFValueType.STRING:
            self._strings += length
            if self._strings > MAX_STRINGS:
                raise damaged(
                    self.path, f"it claims lists of {self._strings} texts, more than any vocabulary has"
                )
            return [self.text() for _ in range(length)]
        layout = np.dtype(_SCALARS[element])
        return np.frombuffer(self.bytes(length * layout.itemsize), layout)

    def _kind(self) -> GGUFValueType:
        number = self.number("<I")
        try:
            return GGUFValueType(number)
        except ValueError as error:
            raise damaged(
                self.path, f"its metadata has values of type {number}, which no version knows"
            ) from error


def _read(path: Path, head: _Head, size: int) -> GgufFile:
    if size < 4 or head.bytes(4) != b"GGUF":
        raise damaged(path, "it does not begin as a GGUF file does")
    version = head.number("<I")
    if version not in _VERSIONS:
        raise damaged(path, f"its version is {version} and {_VERSIONS[-1]} is read (little-endian alone)")
    tensor_count = head.count("<Q", "tensors", _MAX_TENSORS)
    pair_count = head.count("<Q", "metadata pairs", _MAX_PAIRS)
    values: dict[str, Value] = {}
    for _ in range(pair_count):
        key = head.text(_MAX_NAME_BYTES)
        if key in values:
            raise damaged(path, f"its metadata has {key[:60]!r} twice")
        values[key] = head.value()
    metadata = Metadata(values)
    entries = [_entry(path, head) for _ in range(tensor_count)]
    alignment = metadata.integer("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise damaged(path, f"its alignment is {alignment}")
    start = -(-head.at // alignment) * alignment
    return GgufFile(path, metadata, _place(path, entries, start, size))


def _entry(path: Path, head: _Head) -> Tensor:
    name = head.text(_MAX_NAME_BYTES)
    dimensions = head.count("<I", f"dimensions of {name[:60]!r}", _MAX_DIMENSIONS)
    shape = tuple(reversed([head.number("<Q") for _ in range(dimensions)]))
    number = head.number("<I")
    try:
        kind = GGMLQuantizationType(number)
        block, block_bytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError) as error:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The GGUF file's tensor {name[:60]!r} is of type {number}, which is not read: choose another "
            "quantisation.",
        ) from error
    if not shape or 0 in shape or shape[-1] % block:
        raise damaged(path, f"its tensor {name[:60]!r} of type {kind.name} has shape {list(shape)}")
    return Tensor(name, shape, kind, head.number("<Q"), math.prod(shape) // block * block_bytes)


def _place(path: Path, entries: list[Tensor], start: int, size: int) -> dict[str, Tensor]:
    """Tensors by name at their places in the file, none beyond its end and none upon another."""
    placed: dict[str, Tensor] = {}
    end = start
    for entry in sorted(entries, key=lambda entry: entry.offset):
        tensor = Tensor(entry.name, entry.shape, entry.type, start + entry.offset, entry.size)
        if tensor.name in placed:
            raise damaged(path, f"it has the tensor {tensor.name[:60]!r} twice")
        if tensor.offset < end:
            raise damaged(path, f"its tensor {tensor.name[:60]!r} lies upon another")
        end = tensor.offset + tensor.size
        if end > size:
            raise damaged(path, f"it has {size} bytes where its tensors reach to {end}")
        placed[tensor.name] = tensor
    return placed
