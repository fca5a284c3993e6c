"""Truncation where all documents of a request stand in one prompt (Jina v3) and share the model's length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rerank_runtime.text_tokenizer import TextTokenizer
from rerank_runtime.truncation import Fitted, Limits, Texts, TooLongError, Truncation, document_param

# Tokens around a document, with its number and the seams on both sides: more than there ever are.
_AROUND = 32
_SEAMS = 64
# The query stands in the prompt twice: a quarter of the length, so that half is left for the documents.
_QUERY_SHARE = 4


class Listwise(Truncation):
    """The longest documents are shortened to one common length, as much as is needed and no more.

    Args:
        prompt: The prompt of a query and all documents.
    """

    def __init__(
        self, tokenizer: TextTokenizer, limits: Limits, prompt: Callable[[str, list[str]], str]
    ) -> None:
        super().__init__(tokenizer, limits)
        self._prompt = prompt
        self._all = limits.context - tokenizer.prompt_counts([prompt("", [])])[0] - _SEAMS
        self._query = max(0, self._all // _QUERY_SHARE)

    def fits(self, texts: Texts) -> bool:
        most = self.tokenizer.most
        total = 2 * most(texts.query) + sum(most(text) + _AROUND for text in texts.documents)
        return total <= self._all and super().fits(texts)

    def _room(self, query: int) -> int:
        return self._all - 2 * query

    def _within(self, query: str, documents: Sequence[str]) -> Fitted:
        over = self._over([query], self._query)
        if over and self.limits.reject:
            raise self._refuse("query", query, self._query)
        if over:
            [query] = self.tokenizer.cut([over[0]], [self._query])
        found = [text for text, _ in self.tokenizer.measured(documents, self.limits.context)]
        cut: set[int] = set()
        while True:
            tokens = self.tokenizer.prompt_counts([self._prompt(query, found)])[0]
            counts = self.tokenizer.counts(found)
            excess = tokens - self.limits.context
            # Documents of no tokens and still too long: too many of them, which vLLM will say.
            if excess <= 0 or not any(counts):
                return Fitted(query, found, bool(over), tuple(sorted(cut)))
            common = _common(counts, max(0, sum(counts) - excess))
            long = [i for i, count in enumerate(counts) if count > common]
            if self.limits.reject:
                raise self._together(documents, tokens, max(long, key=lambda i: len(documents[i])))
            shorter = self.tokenizer.cut([found[i] for i in long], [common] * len(long))
            for i, text in zip(long, shorter, strict=True):
                found[i] = text
            cut.update(long)

    def _together(self, documents: Sequence[str], tokens: int, longest: int) -> TooLongError:
        return TooLongError(
            document_param(longest),
            f"The {len(documents)} documents have {tokens} tokens together with the query, more than this "
            f"model's length of {self.limits.context}, which they share; {document_param(longest)} is the "
            "longest. Send fewer or shorter documents, or max_tokens_per_doc to have them cut. "
            "The model cuts them itself with spec.scoring.truncation.onOverflow: Truncate.",
        )


def _common(counts: Sequence[int], room: int) -> int:
    """The most tokens that each text may have so that all together have no more than `room`."""
    left = sorted(counts)
    for place, count in enumerate(left):
        share = room // (len(left) - place)
        if count > share:
            return share
        room -= count
    return left[-1]
