"""Long texts of every kind of model: what is cut, what is refused, and how exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerank_runtime import chat_template
from rerank_runtime.families import jina_v3
from rerank_runtime.listwise import Listwise
from rerank_runtime.text_tokenizer import TextTokenizer
from rerank_runtime.truncation import (
    Embeddings,
    Limits,
    Pairs,
    Prompts,
    Texts,
    TooLongError,
    Truncation,
    longest_first,
)
from tests.rerank_runtime import tokenizer_kinds as kinds

ALL_KINDS = (*kinds.KINDS, "roberta")
TEXT = {kind: TextTokenizer(Tokenizer.from_str(json.dumps(kinds.definition(kind)))) for kind in ALL_KINDS}
LONG = " ".join(kinds.SENTENCES * 4)
QUERY = "What is a panda?"


def engine(kind: str) -> Tokenizer:
    """The tokenizer as vLLM and the model cards have it."""
    return Tokenizer.from_str(json.dumps(kinds.definition(kind) | {"truncation": None, "padding": None}))


ENGINE = {kind: engine(kind) for kind in ALL_KINDS}
CARD = {kind: engine(kind) for kind in ("wordpiece", "unigram", "roberta")}


def render(query: str, document: str) -> str:
    return chat_template.render(kinds.QWEN_TEMPLATE, query, document)


def prompts(**limits: Any) -> Prompts:
    return Prompts(TEXT["qwen"], Limits(**limits), render)


def prompt_ids(text: str) -> list[int]:
    found: list[int] = ENGINE["qwen"].encode(text).ids
    return found


# Pairs

words = st.lists(st.sampled_from(" ".join(kinds.SENTENCES).split()), max_size=60).map(" ".join)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 30))
def test_longest_first_is_the_rule_of_tokenizers(first: int, second: int, room: int) -> None:
    tokenizer = Tokenizer.from_str(json.dumps(kinds.definition("wordpiece") | {"padding": None}))
    tokenizer.enable_truncation(room + 3)
    encoding = tokenizer.encode("panda " * first, "panda " * second)
    kept = [encoding.sequence_ids.count(place) for place in (0, 1)]
    assert list(longest_first(first, second, room)) == kept


@pytest.mark.parametrize("kind", CARD)
@settings(max_examples=40, deadline=None)
@given(
    query=words,
    document=st.one_of(words, st.just(LONG * 3), st.text(max_size=40)),
    context=st.integers(8, 64),
)
def test_a_pair_that_was_fitted_is_cut_as_transformers_would(
    kind: str, query: str, document: str, context: int
) -> None:
    fitted = Pairs(TEXT[kind], Limits(context)).fit(Texts(query, [document]))
    CARD[kind].enable_truncation(context)
    expected = CARD[kind].encode(query, document)
    got = CARD[kind].encode(fitted.query, fitted.documents[0])
    assert got.ids == expected.ids
    whole = ENGINE[kind].encode(query, document)
    for place, cut in ((0, fitted.cut_query), (1, bool(fitted.cut_documents))):
        assert cut == (expected.sequence_ids.count(place) < whole.sequence_ids.count(place))


def test_only_what_was_cut_is_reported() -> None:
    room = 32 - 3 - TEXT["wordpiece"].counts([QUERY])[0]
    documents = ["a panda", LONG, "", "panda " * (room + 1), "panda " * room]
    fitted = Pairs(TEXT["wordpiece"], Limits(32)).fit(Texts(QUERY, documents))
    assert (fitted.cut_query, fitted.cut_documents) == (False, (1, 3))


def test_a_query_that_takes_all_is_cut_with_its_document() -> None:
    pairs = Pairs(TEXT["wordpiece"], Limits(13))
    fitted = pairs.fit(Texts("panda " * 50, ["panda", "panda " * 30]))
    assert (fitted.cut_query, fitted.cut_documents) == (True, (1,))


def test_a_document_of_megabytes_is_handed_on_short() -> None:
    fitted = Pairs(TEXT["wordpiece"], Limits(32)).fit(Texts(QUERY, ["panda " * 400_000, "panda"]))
    assert fitted.cut_documents == (0,)
    assert len(fitted.documents[0]) < 5000


# What every kind has

KINDS: dict[str, Callable[[Limits], Truncation]] = {
    "pairs": lambda limits: Pairs(TEXT["wordpiece"], limits),
    "embeddings": lambda limits: Embeddings(TEXT["unigram"], limits),
    "prompts": lambda limits: Prompts(TEXT["qwen"], limits, render),
    "listwise": lambda limits: Listwise(TEXT["qwen"], limits, jina_v3.prompt),
}
LENGTHS = {"pairs": 64, "embeddings": 64, "prompts": 256, "listwise": 1800}


def truncation(kind: str, **limits: Any) -> Truncation:
    return KINDS[kind](Limits(**{"context": LENGTHS[kind], **limits}))


@pytest.mark.parametrize("kind", KINDS)
def test_short_texts_fit_without_tokenising(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = truncation(kind, per_document=20, per_query=20)

    def reached(*_: Any) -> Any:
        raise AssertionError("tokenised")

    monkeypatch.setattr(made.tokenizer, "counts", reached)
    monkeypatch.setattr(made.tokenizer, "prompt_counts", reached)
    assert made.fits(Texts("a panda", ["a bear", "", "hi"]))
    assert not made.fits(Texts("a panda", ["hi", LONG]))
    assert not made.fits(Texts(LONG, ["hi"]))
    assert not made.fits(Texts("a panda", ["a longer bear"], per_document=5))
    assert not made.fits(Texts("a longer panda", ["a bear"], per_query=5))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    query=st.one_of(words, st.text(max_size=30)),
    documents=st.lists(st.one_of(words, st.text(max_size=60), st.just(LONG)), min_size=1, max_size=5),
)
def test_what_fits_by_its_bytes_fits(kind: str, query: str, documents: list[str]) -> None:
    made = truncation(kind)
    texts = Texts(query, documents)
    fitted = made.fit(texts)
    if made.fits(texts):
        assert (fitted.query, list(fitted.documents)) == (query, documents)
        assert not fitted.cut_query
        assert fitted.cut_documents == ()


@pytest.mark.parametrize("kind", KINDS)
def test_limits_of_the_model_and_wishes_of_the_caller_cut(kind: str) -> None:
    texts = ["panda " * 3, "panda " * 9, "hi"]
    counts = truncation(kind).tokenizer.counts
    limited = truncation(kind, per_document=4, per_query=3).fit(Texts("panda " * 5, texts))
    assert limited.cut_query
    assert limited.cut_documents == tuple(i for i, n in enumerate(counts(texts)) if n > 4)
    assert counts([limited.query])[0] <= 3
    assert max(counts(limited.documents)) <= 4
    wished = truncation(kind, per_document=4, reject=True).fit(Texts("a", texts, per_document=2, per_query=0))
    assert max(counts(wished.documents)) <= 2
    assert wished.cut_query


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("limits", "texts", "param", "words_"),
    [
        ({}, (QUERY, ["hi", LONG]), "documents[1]", "max_tokens_per_doc"),
        ({}, (LONG, ["hi"]), "query", "Send a shorter text."),
        ({"per_document": 4}, ("hi", ["hi", "panda " * 9]), "documents[1]", "takes 4 at most"),
        ({"per_query": 4}, ("panda " * 9, ["hi"]), "query", "takes 4 at most"),
    ],
)
def test_too_long_texts_are_refused_by_name_and_number(
    kind: str, limits: dict[str, int], texts: tuple[str, list[str]], param: str, words_: str
) -> None:
    query, documents = texts
    if kind == "listwise" and not limits:
        query, documents = query * 8, [text * 8 if len(text) > 10 else text for text in documents]
    made = truncation(kind, reject=True, **limits)
    with pytest.raises(TooLongError) as refused:
        made.fit(Texts(query, documents))
    assert refused.value.param == param
    assert words_ in refused.value.message
    assert "onOverflow: Truncate" in refused.value.message
    if kind != "listwise":
        text = query if param == "query" else documents[1]
        assert f"{param} has {made.tokenizer.counts([text])[0]} tokens" in refused.value.message


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"listwise"}))  # whose documents share the length
def test_the_number_in_a_refusal_is_what_fits(kind: str) -> None:
    made = truncation(kind, reject=True)
    with pytest.raises(TooLongError) as refused:
        made.fit(Texts(QUERY, [LONG]))
    allowed = int(refused.value.message.split("; ")[1].split()[0])
    [shorter] = made.tokenizer.cut([LONG], [allowed])
    assert made.fit(Texts(QUERY, [shorter])).documents == [shorter]
    [longer] = made.tokenizer.cut([LONG], [allowed + 10])
    with pytest.raises(TooLongError):
        made.fit(Texts(QUERY, [longer]))


# Embeddings


@pytest.mark.parametrize(("count", "cut"), [(62, False), (63, True), (500_000, True)])
def test_an_embedding_model_reads_each_text_alone(count: int, cut: bool) -> None:
    made = Embeddings(TEXT["wordpiece"], Limits(64))
    fitted = made.fit(Texts("panda " * count, ["panda " * count, "panda"]))
    assert (fitted.cut_query, fitted.cut_documents) == (cut, (0,) if cut else ())
    assert len(fitted.documents[0]) < 10_000


# Prompts


@settings(max_examples=40, deadline=None)
@given(
    query=st.one_of(words, st.text(max_size=30), st.just(LONG)),
    document=st.one_of(words, st.just(LONG), st.just(LONG * 5), st.just("🐼" * 300), st.text(max_size=200)),
    context=st.integers(110, 300),
)
def test_a_prompt_keeps_its_template_and_fits(query: str, document: str, context: int) -> None:
    fitted = prompts(context=context).fit(Texts(query, [document]))
    found = prompt_ids(render(fitted.query, fitted.documents[0]))
    whole = prompt_ids(render(query, document))
    assert len(found) <= context
    end = prompt_ids("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert found[-len(end) :] == end
    assert document.startswith(fitted.documents[0])
    assert bool(fitted.cut_documents) == (fitted.documents[0] != document)
    assert fitted.cut_query == (fitted.query != query)
    if len(whole) <= context and not fitted.cut_query:
        assert found == whole


def test_a_cut_prompt_uses_its_length() -> None:
    for context in range(100, 160):
        fitted = prompts(context=context).fit(Texts(QUERY, [LONG]))
        found = prompt_ids(render(QUERY, fitted.documents[0]))
        assert context - 4 <= len(found) <= context
        common = len(prompt_ids(render(QUERY, ""))) - 12
        assert found[:common] == prompt_ids(render(QUERY, LONG))[:common]


def test_a_long_query_leaves_a_quarter_for_documents() -> None:
    made = prompts(context=240)
    fitted = made.fit(Texts(LONG, [LONG, "hi"]))
    room = 240 - len(prompt_ids(render("", "")))
    assert room * 3 // 4 - 4 <= TEXT["qwen"].counts([fitted.query])[0] <= room * 3 // 4
    assert TEXT["qwen"].counts([fitted.documents[0]])[0] > room // 5
    assert (fitted.cut_query, fitted.cut_documents) == (True, (0,))


def test_a_prompt_that_grows_with_its_document_fits() -> None:
    def growing(query: str, document: str) -> str:
        return render(query, document) + " panda" * (len(document) // 50)

    fitted = Prompts(TEXT["qwen"], Limits(context=200), growing).fit(Texts(QUERY, [LONG]))
    assert 190 <= len(prompt_ids(growing(QUERY, fitted.documents[0]))) <= 200


def test_a_template_that_is_itself_too_long_ends() -> None:
    fitted = prompts(context=10).fit(Texts(QUERY, [LONG]))
    assert fitted.documents == [""]


# Listwise


def listwise(context: int, **limits: Any) -> Listwise:
    return Listwise(TEXT["qwen"], Limits(context, **limits), jina_v3.prompt)


@settings(max_examples=25, deadline=None)
@given(
    query=st.one_of(words, st.just(LONG)),
    documents=st.lists(st.one_of(words, st.just(LONG), st.just(LONG * 3)), min_size=1, max_size=8),
)
def test_documents_of_one_prompt_share_its_length(query: str, documents: list[str]) -> None:
    made = listwise(2200)
    fitted = made.fit(Texts(query, documents))
    assert len(prompt_ids(jina_v3.prompt(fitted.query, list(fitted.documents)))) <= 2200
    cut = [i for i, text in enumerate(documents) if fitted.documents[i] != text]
    assert list(fitted.cut_documents) == cut
    kept = TEXT["qwen"].counts(fitted.documents)
    # Nothing that was left whole is longer than what was cut, but for an end that reads otherwise.
    whole = [kept[i] for i in range(len(documents)) if i not in cut]
    if cut and whole:
        assert max(whole) <= max(kept[i] for i in cut) + 8


def test_documents_that_fit_alone_may_not_fit_together() -> None:
    texts = Texts("a panda", ["panda bear " * 9] * 12)
    assert listwise(2600).fits(texts)
    assert not listwise(1400).fits(texts)
    assert all(listwise(1400).fits(Texts("a panda", [text])) for text in texts.documents)


def test_only_the_longest_are_shortened() -> None:
    documents = ["a panda", LONG * 5, "a bear", LONG * 9]
    fitted = listwise(1800).fit(Texts(QUERY, documents))
    first, second = TEXT["qwen"].counts([fitted.documents[1], fitted.documents[3]])
    assert fitted.cut_documents == (1, 3)
    assert abs(first - second) <= 8
    assert 1700 < len(prompt_ids(jina_v3.prompt(QUERY, list(fitted.documents)))) <= 1800


def test_the_refusal_of_documents_together_names_a_longest() -> None:
    with pytest.raises(TooLongError) as refused:
        listwise(1800, reject=True).fit(Texts(QUERY, ["hi", LONG * 2, LONG * 9]))
    assert refused.value.param == "documents[2]"
    assert "3 documents" in refused.value.message
    assert "1800" in refused.value.message
