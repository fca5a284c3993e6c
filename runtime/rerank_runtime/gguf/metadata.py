"""Typed access to a GGUF file's key-value pairs: a key of another type than llama.cpp writes is an error,
never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.gguf import origin

Value = str | int | float | bool | list[str] | NDArray[Any]


@dataclass(frozen=True)
class Metadata:
    """The pairs of one file."""

    values: Mapping[str, Value]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str, default: str | None = None) -> str:
        """The string under a key.

        Raises:
            Failure: `FileMissing` where there is none and no default, or something else.
        """
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._unusable(key, "a text", value)
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """The whole number under a key, not negative; errors as for `text`."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._unusable(key, "a number of things", value)
        return value

    def number(self, key: str) -> float:
        """The number under a key; errors as for `text`.

        The format has 32 bits for it: the shortest decimal that means the same is the one that was meant
        (1e-05, not 9.99999974e-06).
        """
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise self._unusable(key, "a number", value)
        return float(str(np.float32(value)))

    def flag(self, key: str, *, default: bool) -> bool:
        """The truth value under a key; errors as for `text`."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self._unusable(key, "true or false", value)
        return value

    def texts(self, key: str) -> list[str]:
        """The list of strings under a key; errors as for `text`."""
        value = self.values.get(key)
        if not isinstance(value, list):
            raise self._unusable(key, "a list of texts", value)
        return value

    def array(self, key: str, kind: str) -> NDArray[Any]:
        """The list of numbers under a key; errors as for `text`.

        Args:
            key: The key.
            kind: What the numbers must be, in numpy's letters: "f" floats, "iu" integers, "u" unsigned.
        """
        value = self.values.get(key)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kind:
            raise self._unusable(key, "a list of numbers", value)
        return value

    def _unusable(self, key: str, wanted: str, value: object) -> Failure:
        found = "is absent" if value is None else f"is {type(value).__name__}"
        return Failure(
            Reason.FILE_MISSING,
            f"The GGUF file's metadata must have {wanted} under {key}, which {found}. {origin.advice(self)}",
        )
