"""How a GGUF file's tensors become those of a model in Hugging Face's layout: what a family's module decides
and the writer executes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.gguf import origin
from rerank_runtime.gguf.reader import GgufFile, Tensor

# Types that are copied bit by bit, with safetensors' names and bytes of an element. Anything else is
# dequantised.
COPIED = {
    GGMLQuantizationType.F32: ("F32", 4),
    GGMLQuantizationType.F16: ("F16", 2),
    GGMLQuantizationType.BF16: ("BF16", 2),
}
# A quantised weight is a 16-bit scale times a few bits: rounding it to 16 bits (by at most 2^-11 of it) is
# little beside what quantising took, and 32 bits would double the folder and the memory for nothing.
DEQUANTISED = ("F16", 2)


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor in the file, from one index to another."""

    tensor: Tensor
    start: int
    stop: int


@dataclass(frozen=True)
class Zeros:
    """Rows of zeros."""

    rows: int


@dataclass(frozen=True)
class Values:
    """Numbers that were computed, as 32-bit floats."""

    array: NDArray[Any]


@dataclass(frozen=True)
class Target:
    """One tensor of the model that is written, made of pieces one after another."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """As safetensors calls it."""
    pieces: tuple[Rows | Zeros | Values, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * (4 if self.dtype == "F32" else 2)


@dataclass(frozen=True)
class Layout:
    """A model in Hugging Face's layout, still without its tokenizer."""

    title: str
    """What the model is; for Qwen3-Reranker nothing but its name tells whose prompt it wants."""
    config: dict[str, Any]
    targets: tuple[Target, ...]


@dataclass
class Inventory:
    """The tensors of a file, each to be taken once: what is left over was not understood."""

    file: GgufFile
    _taken: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        return name in self.file.tensors

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor by name.

        Raises:
            Failure: `UnsupportedArchitecture` where it is absent, or of another shape or an unknown type.
        """
        tensor = self.file.tensors.get(name)
        if tensor is None:
            raise self.refusal(f"lacks the tensor {name}")
        if tensor.shape != shape:
            raise self.refusal(
                f"has the tensor {name} in shape {list(tensor.shape)} where {list(shape)} is due"
            )
        if not _readable(tensor.type):
            raise self.refusal(f"has the tensor {name} of type {tensor.type.name}, which is not read")
        if len(shape) == 1 and tensor.type not in COPIED:
            raise self.refusal(f"has the tensor {name} quantised, which no converter does to a single row")
        self._taken.add(name)
        return tensor

    def whole(self, target: str, name: str, *shape: int) -> Target:
        """A tensor under its new name, as it is."""
        tensor = self.take(name, *shape)
        return Target(target, shape, stored(tensor), (Rows(tensor, 0, shape[0]),))

    def linear(self, target: str, name: str, rows: int, columns: int) -> list[Target]:
        """Weight and bias of one linear layer."""
        return [
            self.whole(f"{target}.weight", f"{name}.weight", rows, columns),
            self.whole(f"{target}.bias", f"{name}.bias", rows),
        ]

    def norm(self, target: str, name: str, width: int) -> list[Target]:
        """Weight and bias of a layer norm."""
        return [
            self.whole(f"{target}.weight", f"{name}.weight", width),
            self.whole(f"{target}.bias", f"{name}.bias", width),
        ]

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            Failure: `UnsupportedArchitecture` with some of the names.
        """
        left = sorted(set(self.file.tensors) - self._taken)
        if left:
            shown = ", ".join(repr(name[:60]) for name in left[:3])
            raise self.refusal(f"has {len(left)} tensors that the layout does not know ({shown})")

    def refusal(self, what: str, reason: Reason = Reason.UNSUPPORTED_ARCHITECTURE) -> Failure:
        return refusal(self.file, what, reason)


def refusal(file: GgufFile, what: str, reason: Reason = Reason.UNSUPPORTED_ARCHITECTURE) -> Failure:
    """A file that cannot be converted exactly, with the repository to use instead."""
    return Failure(reason, f"The GGUF file {what}. {origin.advice(file.metadata)}")


def stored(tensor: Tensor) -> str:
    """The dtype, in safetensors' words, that a tensor is written in."""
    return COPIED.get(tensor.type, DEQUANTISED)[0]


@cache
def _readable(kind: GGMLQuantizationType) -> bool:
    """Whether the package knows the way back from a type; for some it has the sizes alone."""
    try:
        quants.dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
