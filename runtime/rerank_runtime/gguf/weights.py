"""The model.safetensors of a conversion, written tensor by tensor.

The header comes first, since every size is known before any weight is read; then each tensor passes through
in chunks. Memory holds one chunk and its dequantised form, however large the model is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray

from rerank_runtime import safetensors_header
from rerank_runtime.gguf.layout import COPIED, Rows, Target, Values, Zeros
from rerank_runtime.gguf.reader import Tensor, damaged

# Elements in a chunk: 4 MiB as 32-bit floats.
_CHUNK_ELEMENTS = 2**20


def size(targets: Iterable[Target]) -> int:
    """Bytes of the file that `write` makes, to within its header's padding."""
    targets = tuple(targets)
    return len(_header(targets)) + sum(target.size for target in targets)


def write(source: Path, targets: Iterable[Target], path: Path) -> None:
    """Write a safetensors file.

    Args:
        source: The GGUF file that the pieces of the targets lie in.
        targets: The tensors, in the order in which they are written.
        path: The file, which appears under this name when it is whole.

    Raises:
        Failure: `WeightsTruncated` where the source is shorter than it was, or holds numbers that are none.
        OSError: As the disk says.
    """
    targets = tuple(targets)
    partial = path.with_name(path.name + ".partial")
    try:
        with source.open("rb") as weights, partial.open("wb") as out:
            out.write(_header(targets))
            for target in targets:
                _write_target(source, weights, target, out)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def row(path: Path, tensor: Tensor, index: int) -> NDArray[np.float32]:
    """One row of a tensor as 32-bit floats; errors as for `write`."""
    with path.open("rb") as weights:
        (chunk,) = (_values(tensor, raw) for raw in _raw(path, weights, Rows(tensor, index, index + 1)))
    return chunk


def _header(targets: tuple[Target, ...]) -> bytes:
    tensors = ((t.name, safetensors_header.Tensor(t.dtype, t.shape, t.size)) for t in targets)
    return safetensors_header.encode(tensors)


def _write_target(path: Path, weights: BinaryIO, target: Target, out: BinaryIO) -> None:
    before = out.tell()
    for piece in target.pieces:
        out.writelines(_chunks(path, weights, target, piece))
    if out.tell() - before != target.size:
        raise AssertionError(f"{target.name} has {out.tell() - before} bytes and {target.size} are due")


def _chunks(path: Path, weights: BinaryIO, target: Target, piece: Rows | Zeros | Values) -> Iterator[bytes]:
    if isinstance(piece, Rows):
        for raw in _raw(path, weights, piece):
            yield raw if piece.tensor.type in COPIED else _half(path, piece.tensor, raw).tobytes()
    elif isinstance(piece, Zeros):
        yield bytes(target.size // target.shape[0] * piece.rows)
    else:
        yield piece.array.astype("<f4").tobytes()


def _raw(path: Path, weights: BinaryIO, rows: Rows) -> Iterator[bytes]:
    """The bytes of some rows as they lie in the file."""
    tensor = rows.tensor
    block, block_bytes = GGML_QUANT_SIZES[tensor.type]
    row_bytes = tensor.row // block * block_bytes
    step = max(1, _CHUNK_ELEMENTS // tensor.row) if tensor.row else 1
    weights.seek(tensor.offset + rows.start * row_bytes)
    for start in range(rows.start, rows.stop, step):
        wanted = (min(start + step, rows.stop) - start) * row_bytes
        raw = weights.read(wanted)
        if len(raw) < wanted:
            raise damaged(path, f"it became shorter while {tensor.name} was read")
        yield raw


def _values(tensor: Tensor, raw: bytes) -> NDArray[np.float32]:
    block, block_bytes = GGML_QUANT_SIZES[tensor.type]
    row_bytes = tensor.row // block * block_bytes
    rows = np.frombuffer(raw, np.uint8).reshape(-1, row_bytes)
    # What a hostile scale overflows to is found below.
    with np.errstate(all="ignore"):
        values = quants.dequantize(rows, tensor.type)
    return values.reshape(-1, *tensor.shape[1:]).astype(np.float32, copy=False)


def _half(path: Path, tensor: Tensor, raw: bytes) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        values = _values(tensor, raw).astype("<f2")
    if not np.isfinite(values).all():
        raise damaged(path, f"{tensor.name} holds values that are no finite 16-bit numbers")
    return values


def elements(targets: Iterable[Target]) -> dict[str, int]:
    """How many parameters are written in each dtype."""
    counts: dict[str, int] = {}
    for target in targets:
        counts[target.dtype] = counts.get(target.dtype, 0) + math.prod(target.shape)
    return counts
