"""Which GGUF file of a repository is used. Pure.

Whatever the file holds is served in 16 or 32 bits, so a smaller quantisation saves download time alone and
costs exactness. Without a wish the file nearest to the original is taken, in the order of `QUALITY`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal

from rerank_runtime.failure import Failure, Reason

# From the nearest to the original to the farthest. F16 keeps eleven bits of a weight and BF16 eight; F32 has
# nothing that a model trained in 16 bits lacks in F16, at twice the bytes.
QUALITY = (
    *("F16", "BF16", "F32", "Q8_K_XL", "Q8_0", "Q6_K_XL", "Q6_K_L", "Q6_K"),
    *("Q5_K_XL", "Q5_K_L", "Q5_K_M", "Q5_K", "Q5_K_S", "Q5_1", "Q5_0"),
    *("Q4_K_XL", "Q4_K_L", "Q4_K_M", "Q4_K", "Q4_K_S", "Q4_1", "IQ4_NL", "IQ4_XS", "Q4_0"),
    *("Q3_K_XL", "Q3_K_L", "Q3_K_M", "Q3_K", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS"),
    *("Q2_K_XL", "Q2_K_L", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
)
_RANK = {name: rank for rank, name in enumerate(QUALITY)}
_FILE_FIELD = "spec.model.huggingFace.file"
_QUANTISATION = re.compile(r"(?:^|[-._])((?:BF|FP?|I?Q|TQ)\d[A-Z0-9_]*)$")
# llama.cpp's naming of a model split over several files (gguf-split).
_PART = re.compile(r"-\d{5}-of-(\d{5})$")
# Parts of other models that share the ending: a vision tower, statistics for quantising.
_NO_MODEL = re.compile(r"(^|[-._/])(mmproj|imatrix)", re.IGNORECASE)
_LISTED = 12


@dataclass(frozen=True)
class Choice:
    """The file to use."""

    name: str
    """Its path in the repository."""
    quantisation: str | None
    """As its name says, such as Q8_0; None where it says nothing."""
    chosen_by: Literal["pattern", "only", "best"]
    """The user's pattern, the lack of any other, or `QUALITY`."""


def choose(names: Iterable[str], pattern: str | None = None) -> Choice:
    """Choose a file.

    Args:
        names: All files of the repository, as paths in it.
        pattern: A glob over them that picks exactly one GGUF file, such as `*Q8_0.gguf`; None for the best
            quantisation.

    Raises:
        Failure: `InvalidSource` where the pattern picks none or several, or where nothing says which is best.
    """
    files = sorted(n for n in names if n.lower().endswith(".gguf") and not _NO_MODEL.search(n))
    if not files:
        raise Failure(
            Reason.INVALID_SOURCE,
            "The repository has no GGUF file"
            + (f" for {_FILE_FIELD} ({pattern}) to choose: remove the field." if pattern else "."),
        )
    if pattern is not None:
        return _by_pattern(files, pattern)
    whole = [name for name in files if not _parts(name)]
    if not whole:
        raise _split(files)
    if len(whole) == 1:
        return Choice(whole[0], quantisation(whole[0]), "only")
    best = min(_rank(name) for name in whole)
    found = [name for name in whole if _rank(name) == best]
    if len(found) > 1:
        raise Failure(
            Reason.INVALID_SOURCE,
            f"The repository has several GGUF files and none is plainly the best: {_listed(found)}. "
            f"Choose one with {_FILE_FIELD}.",
        )
    return Choice(found[0], quantisation(found[0]), "best")


def quantisation(name: str) -> str | None:
    """The quantisation that a file's name ends with, by llama.cpp's custom; None where there is none."""
    stem = _PART.sub("", PurePosixPath(name).name[: -len(".gguf")]).upper()
    found = _QUANTISATION.search(stem)
    return found[1] if found else None


def _by_pattern(files: list[str], pattern: str) -> Choice:
    found = [name for name in files if fnmatchcase(name, pattern)]
    if not found:
        raise Failure(
            Reason.INVALID_SOURCE,
            f"No GGUF file matches {_FILE_FIELD} ({pattern}). The repository has: {_listed(files)}.",
        )
    if all(_parts(name) for name in found):
        raise _split(found)
    if len(found) > 1:
        raise Failure(
            Reason.INVALID_SOURCE,
            f"{len(found)} GGUF files match {_FILE_FIELD} ({pattern}): {_listed(found)}. "
            "It must pick exactly one.",
        )
    return Choice(found[0], quantisation(found[0]), "pattern")


def _parts(name: str) -> int:
    """Of how many files this one is a part; 0 for a whole one."""
    found = _PART.search(name[: -len(".gguf")])
    count = int(found[1]) if found else 0
    return count if count > 1 else 0


def _split(files: list[str]) -> Failure:
    return Failure(
        Reason.INVALID_SOURCE,
        f"The model is split over several GGUF files ({_listed(files)}), which are not put together: choose "
        "a file that is whole, or the original repository in safetensors.",
    )


def _rank(name: str) -> int:
    # Some write FP16 for F16.
    return _RANK.get((quantisation(name) or "").replace("FP", "F"), len(QUALITY))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
