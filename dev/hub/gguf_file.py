"""GGUF files, as far as the small rerankers need them. Used by gguf_qwen3 and gguf_xlm_roberta."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from dev.hub.word_overlap import Array


class TokenType(IntEnum):
    """llama.cpp's kinds of tokens (llama_token_type)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


def written(
    architecture: str,
    describe: Callable[[gguf.GGUFWriter], None],
    tensors: Iterable[tuple[str, Array]],
    quantisation: Kind,
) -> bytes:
    """A whole file.

    Args:
        architecture: llama.cpp's name for it.
        describe: Adds the metadata.
        tensors: The weights, by llama.cpp's names.
        quantisation: Type of the matrices; vectors and embeddings of positions stay F32.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        describe(writer)
        for name, array in tensors:
            exact = array.ndim == 1 or name in {"position_embd.weight", "token_types.weight"}
            kind = Kind.F32 if exact else quantisation
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


class Weights:
    """Random weights of the size that trained ones have. PCG64 gives the same on every machine."""

    def __init__(self) -> None:
        self._random = np.random.Generator(np.random.PCG64(20240229))

    def matrix(self, rows: int, columns: int) -> Array:
        spread = np.float32(1.5 / np.sqrt(columns))
        return spread * self._random.standard_normal((rows, columns), dtype=np.float32)

    def norm(self, size: int) -> Array:
        return np.float32(1) + self.vector(size)

    def vector(self, size: int) -> Array:
        return np.float32(0.1) * self._random.standard_normal(size, dtype=np.float32)
