"""The model's own tokenizer as the intake needs it: how many tokens, surely not more than, cut to so many."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rerank_runtime import code_points

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# More than a token of common text has. Of a text that is longer than this for each token that may stay, a
# beginning is looked at.
_CHARACTERS_PER_TOKEN = 6
# How far behind the last token that stays the beginning goes on: what follows can change tokens at its end
# only. WordPiece reads a word of up to 100 characters as pieces and a longer one as one unknown token.
_BEYOND = 128
_ATTEMPTS = 8


class TextTokenizer:
    """A fast tokenizer, without the truncation and padding that its file may ask for.

    Safe for use by several threads.

    Args:
        tokenizer: As its file describes it; it is changed here.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._per_character = _most_per_character(tokenizer)
        self._growths = _growths(self._tokenizer)
        self._most_growth = max((times for _, times in self._growths), default=1)

    def special(self, *, pair: bool) -> int:
        """Tokens that go around one text, or around a pair of texts."""
        return int(self._tokenizer.num_special_tokens_to_add(pair))

    def most(self, text: str) -> int:
        """A number of tokens that the text surely does not exceed, special ones not counted. Cheap.

        A token stands for one byte of normalised text at least. Of ASCII no normaliser makes more
        characters; of other texts some do (`ﷺ` becomes 18 letters by NFKC).
        """
        if text.isascii():
            return self._per_character * len(text) + 1
        growth = next((times for characters, times in self._growths if not characters.isdisjoint(text)), 1)
        return growth * self._per_character * len(text.encode()) + 1

    def within(self, text: str, tokens: int) -> bool:
        """Whether `most` is at most `tokens`. Cheaper: looks at characters only where it depends on them."""
        if text.isascii():
            return self._per_character * len(text) < tokens
        size = self._per_character * len(text.encode())
        if size >= tokens:
            return False
        return size * self._most_growth < tokens or self.most(text) <= tokens

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones not counted."""
        return [len(e) for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def prompt_counts(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones counted: as vLLM reads a whole prompt."""
        return [len(e) for e in self._tokenizer.encode_batch_fast(list(prompts))]

    def measured(self, texts: Sequence[str], tokens: int) -> list[tuple[str, int]]:
        """Each text with its number of tokens, special ones not counted, where `tokens` of it may stay.

        Of a text that is much longer only a beginning is looked at and returned: its first `tokens` tokens
        are those of the text, and it has more of them. So a text of megabytes costs little more than one
        that fits.
        """
        size = _CHARACTERS_PER_TOKEN * (max(0, tokens) + _BEYOND)
        starts = [text[:size] for text in texts]
        counts = self.counts(starts)
        while True:
            short = [
                i for i, n in enumerate(counts) if len(starts[i]) < len(texts[i]) and n <= tokens + _BEYOND
            ]
            if not short:
                return list(zip(starts, counts, strict=True))
            size *= 4
            longer = [texts[i][:size] for i in short]
            for i, start, count in zip(short, longer, self.counts(longer), strict=True):
                starts[i], counts[i] = start, count

    def cut(self, texts: Sequence[str], tokens: Sequence[int]) -> list[str]:
        """The longest beginning of each text that has at most so many tokens, special ones not counted.

        It ends between two tokens of the text. A beginning can have more tokens than it had as a part of
        the whole: then it is cut again.
        """
        found = list(texts)
        too_long = list(range(len(found)))
        for attempt in itertools.count():
            encodings = self._tokenizer.encode_batch([found[i] for i in too_long], add_special_tokens=False)
            # A few attempts do; the allowance only shrinks so that there is an end for certain.
            less = 2**attempt if attempt > _ATTEMPTS else 0
            for i, encoding in zip(too_long, encodings, strict=True):
                if len(encoding.ids) > tokens[i]:
                    found[i] = found[i][: _end(encoding.offsets, max(0, tokens[i] - less))]
            too_long = [
                i for i, e in zip(too_long, encodings, strict=True) if len(e.ids) > tokens[i] and found[i]
            ]
            if not too_long:
                break
        return found


def _end(offsets: Sequence[tuple[int, int]], tokens: int) -> int:
    """Where a text ends after so many of its tokens, in characters."""
    if tokens == 0:
        return 0
    # Several tokens may share a character, which then goes with the first that is cut.
    return min(offsets[tokens - 1][1], offsets[tokens][0])


def _most_per_character(tokenizer: Tokenizer) -> int:
    """2 where a text is split within words and each part gets a mark of its own (`▁`), else 1."""
    splitter = tokenizer.pre_tokenizer
    kinds = {
        step["type"] for step in _steps(None if splitter is None else json.loads(splitter.__getstate__()))
    }
    return 2 if "Metaspace" in kinds and kinds - {"Metaspace", "WhitespaceSplit"} else 1


def _steps(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [inner for entry in step["pretokenizers"] for inner in _steps(entry)]
    return [step]


def _growths(tokenizer: Tokenizer) -> list[tuple[frozenset[str], int]]:
    """Characters of which normalising may make more bytes of UTF-8, and how many times more at most."""
    normalizer = tokenizer.normalizer
    if normalizer is None:
        return []
    growing, most = set(), 2
    for character in code_points.changing():
        # Spaces that a normaliser puts around characters are no tokens.
        times = len(normalizer.normalize_str(character).strip().encode()) / len(character.encode())
        if times > 1:
            growing.add(character)
            most = max(most, math.ceil(times))
    # In another order combining characters may compose less: é with a dot below.
    return [(frozenset(growing), most), (frozenset(code_points.combining()), 2)]
