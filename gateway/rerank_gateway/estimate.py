"""How many tokens a text will be, before any tokenizer has seen it. Calibrated by what models say they read.

The gateway has no tokenizers: it needs only to know which of two requests is more work, and about how many
make a full engine step.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

# UTF-8 bytes, not characters: one token is about 4 bytes of English and 3 of Chinese (one character). The
# beginning errs on the side of too many, so that a first chunk is rather too small than too large.
_BYTES_PER_TOKEN: Final = 3
# Separators, or the words of a short prompt, around each pair.
_AROUND: Final = 8
_WEIGHT: Final = 0.1
# What cannot be true of any tokenizer is not believed: a model that counts wrong must not stop its queue.
_LEAST: Final = 0.125
_MOST: Final = 8.0


def size(text: str) -> int:
    """Bytes of a text in UTF-8, lone surrogates counted like other characters."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class Estimate(NamedTuple):
    """Of one request: the tokens of its query together with each document, estimated with `ratio`."""

    ratio: float
    pairs: Sequence[int]


class Estimator:
    """Of one model. `longest`: tokens after which it cuts a text, or None."""

    def __init__(self) -> None:
        self.longest: int | None = None
        self.ratio = 1.0
        """Tokens that the model really reads for each one that the bytes say."""

    def pairs(self, query: str, documents: Sequence[str]) -> list[int]:
        """Tokens of the query together with each document, at least 1."""
        ratio, longest = self.ratio, self.longest
        base = size(query) / _BYTES_PER_TOKEN + _AROUND
        found = [
            int(ratio * (base + (len(text) if text.isascii() else size(text)) / _BYTES_PER_TOKEN)) or 1
            for text in documents
        ]
        if longest is not None and max(found) > longest:
            return [min(tokens, longest) for tokens in found]
        return found

    def of(self, query: str, documents: Sequence[str]) -> Estimate:
        """An estimate that is good for `learn`, however much is learned meanwhile."""
        return Estimate(self.ratio, self.pairs(query, documents))

    def learn(self, estimated: int, read: int, ratio: float) -> None:
        """A request that was estimated at so many tokens had `read`, by its answer's usage.

        Large requests teach more than small ones: a moving average, weighted by size up to a thousand
        tokens.

        Args:
            estimated: by `pairs`.
            read: by the model.
            ratio: of the `Estimate`; many requests may have been on their way since.
        """
        if estimated <= 0 or read <= 0:
            return
        weight = _WEIGHT * min(1.0, estimated / 1000)
        found = min(_MOST, max(_LEAST, ratio * read / estimated))
        self.ratio += weight * (found - self.ratio)
