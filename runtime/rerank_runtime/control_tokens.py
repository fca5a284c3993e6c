"""Strings that the tokenizer turns into control tokens, made harmless in texts that users send.

A tokenizer looks for its special tokens in every text: a document that holds `<|im_end|>` or `</s>` would end
its own prompt or pair and move its score. One rule for every family: a space goes behind such a string's
first character. Then it is read as the letters that it is made of, like any other text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from rerank_runtime import code_points

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Fields of tokenizer_config.json that name special tokens, which transformers adds to those of
# tokenizer.json (transformers 5.19, tokenization_utils_base.py: SPECIAL_TOKENS_ATTRIBUTES).
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTED = ("additional_special_tokens", "extra_special_tokens")

# What normalisers may drop of ASCII.
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Normalize = Callable[[str], str]


class ControlTokens:
    """The control strings of one tokenizer.

    Args:
        strings: What must not be found in a text, each of two characters or more.
        normalize: The tokenizer's normaliser, where strings also count that only appear in normalised text
            (a fullwidth `</s>` becomes one by NFKC); else None.
    """

    def __init__(self, strings: Iterable[str], normalize: Normalize | None = None) -> None:
        self.strings = tuple(sorted({s for s in strings if len(s) > 1 and not s.isspace()}))
        self._normalize = normalize
        found = set(self.strings) | ({normalize(s) for s in self.strings} if normalize else set())
        # The longest first: Python takes the first alternative that fits.
        self._pattern = re.compile("|".join(map(re.escape, sorted(found - {""}, key=len, reverse=True))))
        self._any_case = re.compile(self._pattern.pattern, re.IGNORECASE)
        firsts = {s[0] for s in found if s}
        triggers = firsts | (_sources(firsts, normalize) if normalize else set())
        # Whatever holds none of these holds no control string: looking for single characters costs next to
        # nothing.
        self._triggers = tuple(sorted(triggers))
        self._ascii_triggers = tuple(c for c in self._triggers if c.isascii())

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, definition: dict[str, Any], config: dict[str, Any], template: str | None
    ) -> ControlTokens:
        """The control strings of a tokenizer.

        Args:
            tokenizer: The tokenizer.
            definition: Its tokenizer.json.
            config: tokenizer_config.json.
            template: The chat template, or None.
        """
        strings = _strings(definition, config, template)
        if not strings:
            return cls(())
        return cls(strings, _normalizer(tokenizer, definition, strings))

    def inert(self, text: str) -> str:
        """The text without control strings; itself where it holds none."""
        triggers = self._ascii_triggers if text.isascii() else self._triggers
        if not any(trigger in text for trigger in triggers):
            return text
        text = self._broken(text)
        if self._normalize is not None and not self._is_plain(text):
            normal = self._normalize(text)
            if self._pattern.search(normal):
                return self._broken(normal)
        return text

    def _is_plain(self, text: str) -> bool:
        """Whether normalising cannot show a control string: printed ASCII only changes its case."""
        return text.isascii() and not _ODD.search(text) and not self._any_case.search(text)

    def _broken(self, text: str) -> str:
        # More than once where strings overlap: what a space parts may leave another behind it.
        while True:
            text, count = self._pattern.subn(_part, text)
            if not count:
                return text


def _part(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"


def _strings(definition: dict[str, Any], config: dict[str, Any], template: str | None) -> set[str]:
    vocabulary = _vocabulary(definition)
    strings = set(_configured(config))
    decoder = config.get("added_tokens_decoder")
    added = list(definition.get("added_tokens") or []) + list((decoder or {}).values())
    for token in added:
        content = token["content"]
        if token.get("special") or _is_mark(content, vocabulary) or content in (template or ""):
            strings.add(content)
    return {s for s in strings if len(s) > 1 and not s.isspace()}


def _is_mark(content: str, vocabulary: set[str]) -> bool:
    """Whether an added token that is not called special is one all the same, as Qwen's `</think>`.

    Words that somebody added for their subject, runs of spaces (ModernBERT) and tags that belong to the
    trained vocabulary (Gemma's `<table>`) are text, which the model card reads as it is.
    """
    edges = content[:1] + content[-1:]
    return (
        content not in vocabulary
        and any(c.isalnum() for c in content)
        and not any(c.isalnum() or c.isspace() for c in edges)
    )


def _configured(config: dict[str, Any]) -> Iterable[str]:
    values = [config.get(name) for name in _NAMED]
    for name in _LISTED:
        more = config.get(name) or []
        values += more.values() if isinstance(more, dict) else more
    for value in values:
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            yield content


def _vocabulary(definition: dict[str, Any]) -> set[str]:
    pieces = definition["model"].get("vocab") or []
    # Unigram lists [piece, score], the others map pieces to ids.
    return set(pieces) if isinstance(pieces, dict) else {entry[0] for entry in pieces}


def _normalizer(tokenizer: Tokenizer, definition: dict[str, Any], strings: set[str]) -> Normalize | None:
    """The normaliser where normalised text can hold control tokens: some are looked for there, or the model
    itself makes them of ordinary characters, as XLM-R's unigram vocabulary makes `</s>`.
    """
    normalizer = tokenizer.normalizer
    if normalizer is None:
        return None
    late = any(t["content"] in strings and t.get("normalized") for t in definition.get("added_tokens") or [])
    if not late and not any(_makes(tokenizer, string) for string in strings - {_unknown(definition)}):
        return None
    return cast("Normalize", normalizer.normalize_str)


def _makes(tokenizer: Tokenizer, string: str) -> bool:
    """Whether the model reads the string as one token even where nobody looks for added tokens."""
    text = tokenizer.normalizer.normalize_str(string)
    splitter = tokenizer.pre_tokenizer
    parts = [part for part, _ in splitter.pre_tokenize_str(text)] if splitter is not None else [text]
    return any(token.value == string for part in parts for token in tokenizer.model.tokenize(part))


def _unknown(definition: dict[str, Any]) -> str | None:
    """The token that stands for whatever the model does not know: it comes from anything."""
    model = definition["model"]
    place = model.get("unk_id")
    token: str | None = model.get("unk_token") if place is None else model["vocab"][place][0]
    return token


def _sources(firsts: set[str], normalize: Normalize) -> set[str]:
    """Every character that the normaliser makes one of `firsts` of."""
    return {c for c in code_points.changing() if not firsts.isdisjoint(normalize(c))}
