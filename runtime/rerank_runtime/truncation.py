"""Texts that are too long: cut as the model card cuts them, or refused. Never a template, whose end decides
the score.

vLLM takes a request whole or refuses it whole, without saying which document was at fault. So the intake
counts first. Texts that are short enough by their bytes are not tokenised here at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rerank_runtime.text_tokenizer import TextTokenizer

# Tokens that a template's words may have more once texts stand in it: those beside the two gaps.
_SEAMS = 64
_HEAD = 200


class TooLongError(Exception):
    """A text is longer than allowed, and the model's owner wants such requests refused.

    Args:
        param: The text, as the request names it.
        message: What is wrong and the way out, for the caller.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
        self.message = message


@dataclass(frozen=True)
class Limits:
    """What a model takes, in tokens. `reject`: longer texts are refused instead of cut."""

    context: int
    per_document: int | None = None
    per_query: int | None = None
    reject: bool = False


@dataclass(frozen=True)
class Texts:
    """The texts of a request, and how long the caller wants them at most, in tokens."""

    query: str
    documents: Sequence[str]
    per_document: int | None = None
    per_query: int | None = None


@dataclass(frozen=True)
class Fitted:
    """Texts that fit, and which of them were cut: documents by their place in the request."""

    query: str
    documents: Sequence[str]
    cut_query: bool = False
    cut_documents: tuple[int, ...] = ()


class Truncation(ABC):
    """How texts are made to fit. One kind for each way in which models read them."""

    by_engine = False
    """Whether vLLM is to cut what is longer than the model: exact where no template has an end to lose."""

    def __init__(self, tokenizer: TextTokenizer, limits: Limits) -> None:
        self.tokenizer = tokenizer
        self.limits = limits

    def fits(self, texts: Texts) -> bool:
        """Whether all surely fit, by their bytes alone. Costs next to nothing; False proves nothing."""
        query = self.tokenizer.most(texts.query)
        if any(query > limit for limit in (texts.per_query, self.limits.per_query) if limit is not None):
            return False
        limits = (texts.per_document, self.limits.per_document, self._room(query))
        allowed = min(limit for limit in limits if limit is not None)
        return all(self.tokenizer.within(document, allowed) for document in texts.documents)

    def fit(self, texts: Texts) -> Fitted:
        """Tokenise what may be too long and cut what is.

        Raises:
            TooLongError: a text is, and `limits.reject` says so.
        """
        limits = self.limits
        queries, query_cut = self._limited(
            [texts.query], texts.per_query, limits.per_query, lambda _: "query"
        )
        documents, documents_cut = self._limited(
            texts.documents, texts.per_document, limits.per_document, document_param
        )
        fitted = self._within(queries[0], documents)
        return Fitted(
            fitted.query,
            fitted.documents,
            fitted.cut_query or bool(query_cut),
            tuple(sorted(documents_cut.union(fitted.cut_documents))),
        )

    @abstractmethod
    def _room(self, query: int) -> int:
        """Tokens that a document may have beside a query of `query` tokens, negative for none."""

    @abstractmethod
    def _within(self, query: str, documents: Sequence[str]) -> Fitted:
        """Make texts fit into the model's length."""

    def _limited(
        self, texts: Sequence[str], wish: int | None, limit: int | None, name: Callable[[int], str]
    ) -> tuple[list[str], set[int]]:
        """Texts within the caller's wish, which always cuts, and the model's limit; and which were cut."""
        found = list(texts)
        cut: set[int] = set()
        for allowed, reject in ((wish, False), (limit, self.limits.reject)):
            if allowed is None:
                continue
            over = self._over(found, allowed)
            if over and reject:
                first = min(over)
                tokens = self.tokenizer.counts([found[first]])[0]
                raise _too_long(name(first), f"{tokens} tokens; this model takes {allowed} at most")
            shorter = self.tokenizer.cut(list(over.values()), [allowed] * len(over))
            for i, text in zip(over, shorter, strict=True):
                found[i] = text
            cut.update(over)
        return found, cut

    def _over(self, texts: Sequence[str], allowed: int) -> dict[int, str]:
        """The texts that have more tokens than allowed, by their place: what of each must be looked at."""
        maybe = [i for i, text in enumerate(texts) if not self.tokenizer.within(text, allowed)]
        measured = self.tokenizer.measured([texts[i] for i in maybe], allowed)
        return {i: start for i, (start, n) in zip(maybe, measured, strict=True) if n > allowed}

    def _refuse(self, param: str, text: str, allowed: int) -> TooLongError:
        """The refusal of a text that does not fit into the model's length."""
        tokens = self.tokenizer.counts([text])[0]
        room = f"{max(0, allowed)} fit into this model's length of {self.limits.context}"
        return _too_long(param, f"{tokens} tokens; {room}")


class Pairs(Truncation):
    """Query and document as a pair of texts around separators: BERT, RoBERTa, ModernBERT and their kin.

    The cards leave it to transformers, which shortens the longer of the two first ("longest_first"). vLLM
    does exactly that itself when told to, so only the report is made here.
    """

    by_engine = True

    def __init__(self, tokenizer: TextTokenizer, limits: Limits) -> None:
        super().__init__(tokenizer, limits)
        self._both = limits.context - tokenizer.special(pair=True)

    def _room(self, query: int) -> int:
        return self._both - query

    def _within(self, query: str, documents: Sequence[str]) -> Fitted:
        both = self._both
        [(start, query_tokens)] = self.tokenizer.measured([query], both)
        room = both - query_tokens
        if self.limits.reject:
            if room < 0:
                raise self._refuse("query", query, both)
            for i in self._over(documents, room):
                raise self._refuse(document_param(i), documents[i], room)
            return Fitted(query, documents)
        found, cut, cut_query = list(documents), [], False
        maybe = [i for i, text in enumerate(documents) if not self.tokenizer.within(text, room)]
        measured = self.tokenizer.measured([documents[i] for i in maybe], both)
        for i, (text, tokens) in zip(maybe, measured, strict=True):
            kept_query, kept = longest_first(query_tokens, tokens, both)
            cut_query |= kept_query < query_tokens
            found[i] = text
            if kept < tokens:
                cut.append(i)
        return Fitted(start, found, cut_query, tuple(cut))


class Embeddings(Truncation):
    """Query and documents each by themselves, compared by the cosine of their embeddings.

    Each is cut at its end, as sentence-transformers does, and as vLLM does when told to.
    """

    by_engine = True

    def __init__(self, tokenizer: TextTokenizer, limits: Limits) -> None:
        super().__init__(tokenizer, limits)
        self._each = limits.context - tokenizer.special(pair=False)

    def _room(self, query: int) -> int:
        return self._each if query <= self._each else -1

    def _within(self, query: str, documents: Sequence[str]) -> Fitted:
        texts = [query, *documents]
        over = self._over(texts, self._each)
        if over and self.limits.reject:
            first = min(over)
            raise self._refuse(document_param(first - 1) if first else "query", texts[first], self._each)
        for i, text in over.items():
            texts[i] = text
        return Fitted(texts[0], texts[1:], 0 in over, tuple(i - 1 for i in over if i))


class Prompts(Truncation):
    """Query and document in a prompt of the model's own wording: Qwen3, mxbai, Gemma, Nemotron.

    The document is cut at its end so that the whole template is read, as the cards do. Of what the template
    leaves, a query takes three quarters at most (the rule of FlagEmbedding's and mxbai's libraries): without
    one a long query would leave no room for any document.

    Args:
        render: The prompt of a query and a document.
    """

    def __init__(self, tokenizer: TextTokenizer, limits: Limits, render: Callable[[str, str], str]) -> None:
        super().__init__(tokenizer, limits)
        self._render = render
        self._both = limits.context - tokenizer.prompt_counts([render("", "")])[0]
        self._query = max(0, self._both * 3 // 4)

    def _room(self, query: int) -> int:
        return self._both - _SEAMS - query if query <= self._query else -1

    def _within(self, query: str, documents: Sequence[str]) -> Fitted:
        over = self._over([query], self._both if self.limits.reject else self._query)
        if over and self.limits.reject:
            raise self._refuse("query", query, self._both)
        if over:
            [query] = self.tokenizer.cut([over[0]], [self._query])
        room = self._both - _SEAMS - self.tokenizer.counts([query])[0]
        found, cut = list(documents), []
        shortened, allowed = self._shortened(query, self._over(documents, room))
        for i, text in shortened.items():
            if text == documents[i]:
                continue
            if self.limits.reject:
                raise self._refuse(document_param(i), documents[i], allowed[i])
            found[i] = text
            cut.append(i)
        return Fitted(query, found, bool(over), tuple(cut))

    def _shortened(self, query: str, texts: dict[int, str]) -> tuple[dict[int, str], dict[int, int]]:
        """Documents cut until their prompts fit, and the tokens that each may have, by their place."""
        found, places = dict(texts), list(texts)
        # What stands around a document has other tokens beside other letters: tried with its own first ones.
        heads = [texts[i][:_HEAD].rstrip() for i in places]
        prompts = self.tokenizer.prompt_counts([self._render(query, head) for head in heads])
        sizes = self.tokenizer.counts(heads)
        allowed = {
            i: max(0, self.limits.context - prompt + size)
            for i, prompt, size in zip(places, prompts, sizes, strict=True)
        }
        while places:
            cut = self.tokenizer.cut([found[i] for i in places], [allowed[i] for i in places])
            found.update(zip(places, cut, strict=True))
            prompts = self.tokenizer.prompt_counts([self._render(query, text) for text in cut])
            excess = {i: n - self.limits.context for i, n in zip(places, prompts, strict=True)}
            # A prompt that is too long without any document is the plan's mistake: vLLM will say so.
            places = [i for i in places if excess[i] > 0 and found[i]]
            for i in places:
                allowed[i] = max(0, allowed[i] - excess[i])
        return found, allowed


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """What is left of two texts of so many tokens when both together may have `room`.

    The rule of `tokenizers` (utils/truncation.rs, TruncationStrategy::LongestFirst).
    """
    if first + second <= room:
        return first, second
    shorter, longer = sorted((first, second))
    longer = longer if shorter > room else max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room // 2 + room % 2
    return (shorter, longer) if first <= second else (longer, shorter)


def document_param(index: int) -> str:
    """How a refusal names a document."""
    return f"documents[{index}]"


def _too_long(param: str, what: str) -> TooLongError:
    wish = "" if param == "query" else ", or max_tokens_per_doc to have it cut"
    return TooLongError(
        param,
        f"{param} has {what}. Send a shorter text{wish}. "
        "The model cuts longer texts itself with spec.scoring.truncation.onOverflow: Truncate.",
    )
