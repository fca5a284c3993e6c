"""Characters that tokenizers' normalisers change: all of Unicode is too much to try on each of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import chain

_SURROGATES = range(0xD800, 0xE000)
# Planes 4 to 13 are empty, 15 and 16 for private use.
_ASSIGNED = (range(0x40000), range(0xE0000, 0xE1000))


@cache
def changing() -> tuple[str, ...]:
    """Characters beyond ASCII that Unicode's decompositions change, and all that have another case.

    What normalisers do to single characters is among it: NFC, NFD, NFKC, NFKD, sentencepiece's rules (which
    are NFKC's), lower case, accents removed.
    """
    return tuple(
        c
        for c in _characters()
        if (not c.isascii() and unicodedata.normalize("NFKD", c) != c) or c.lower() != c or c.upper() != c
    )


@cache
def combining() -> tuple[str, ...]:
    """Characters that combine with the one before them."""
    return tuple(c for c in _characters() if unicodedata.combining(c))


def _characters() -> Iterator[str]:
    return (chr(c) for c in chain(*_ASSIGNED) if c not in _SURROGATES)
