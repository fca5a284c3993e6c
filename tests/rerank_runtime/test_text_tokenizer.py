"""Counting, bounding and cutting, against the tokenizers themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerank_runtime.text_tokenizer import TextTokenizer
from tests.rerank_runtime import tokenizer_kinds as kinds
from tests.rerank_runtime.conftest import MINILM

ALL_KINDS = (*kinds.KINDS, "roberta", "gemma")


def text_tokenizer(definition: dict[str, Any]) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_str(json.dumps(definition)))


TEXT = {kind: text_tokenizer(kinds.definition(kind)) for kind in ALL_KINDS}
texts = st.lists(
    st.one_of(
        st.sampled_from(kinds.SENTENCES), st.text(max_size=20), st.sampled_from(["ﷺ", "가", "ĉ̣", " ", "\n"])
    ),
    max_size=8,
).map("".join)


def plain(kind: str) -> Tokenizer:
    """The tokenizer without what its file says of cutting and padding."""
    return Tokenizer.from_str(json.dumps(kinds.definition(kind) | {"truncation": None, "padding": None}))


PLAIN = {kind: plain(kind) for kind in ALL_KINDS}


def ids(kind: str, text: str) -> list[int]:
    found: list[int] = PLAIN[kind].encode(text, add_special_tokens=False).ids
    return found


def test_what_the_file_says_of_cutting_and_padding_is_not_done() -> None:
    # MiniLM's file cuts at 128 tokens and pads to them.
    found = TextTokenizer(Tokenizer.from_file(str(MINILM / "tokenizer.json")))
    assert found.counts(["panda " * 200, "hi"]) == [200, 1]
    assert found.prompt_counts(["panda " * 200, "hi"]) == [202, 3]
    assert (found.special(pair=False), found.special(pair=True)) == (2, 3)


@pytest.mark.parametrize(
    ("kind", "single", "pair"), [("unigram", 2, 4), ("roberta", 2, 4), ("qwen", 0, 0), ("gemma", 1, 1)]
)
def test_special_tokens_around_texts(kind: str, single: int, pair: int) -> None:
    assert (TEXT[kind].special(pair=False), TEXT[kind].special(pair=True)) == (single, pair)


@pytest.mark.parametrize("kind", ALL_KINDS)
@settings(max_examples=120, deadline=None)
@given(text=texts)
@example(text="ﷺ" * 40)
@example(text="각" * 40)
@example(text="é\u0323" * 40)
@example(text="~" * 40)
def test_the_cheap_bound_is_never_exceeded(kind: str, text: str) -> None:
    most = TEXT[kind].most(text)
    assert len(ids(kind, text)) <= most
    assert [TEXT[kind].within(text, tokens) for tokens in (most - 1, most, 12 * most)] == [False, True, True]


@pytest.mark.parametrize("kind", kinds.KINDS)
@pytest.mark.parametrize("text", ["panda " * 100, "大熊猫" * 100, "الباندا " * 100])
def test_the_cheap_bound_is_the_size_for_common_texts(kind: str, text: str) -> None:
    assert TEXT[kind].most(text) == len(text.encode()) + 1


def test_parts_of_words_with_marks_of_their_own_count_twice() -> None:
    step = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Whitespace"}, {"type": "Metaspace", "replacement": "▁"}],
    }
    metaspace = step["pretokenizers"][1]
    assert isinstance(metaspace, dict)
    metaspace |= {"prepend_scheme": "always", "split": True}
    definition = kinds.definition("unigram") | {"pre_tokenizer": step}
    text = "a.a" * 30
    found = text_tokenizer(definition)
    assert len(text) < found.counts([text])[0] <= found.most(text)


@pytest.mark.parametrize("kind", ALL_KINDS)
@settings(max_examples=100, deadline=None)
@given(text=texts, tokens=st.integers(0, 40))
@example(text="🐼🐼🐼", tokens=2)
@example(text="a " * 30, tokens=0)
def test_a_text_is_cut_to_so_many_tokens(kind: str, text: str, tokens: int) -> None:
    [cut] = TEXT[kind].cut([text], [tokens])
    whole = ids(kind, text)
    assert text.startswith(cut)
    assert len(ids(kind, cut)) <= tokens
    if len(whole) <= tokens:
        assert cut == text


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("tokens", [1, 7, 50, 199])
def test_as_much_stays_as_may(kind: str, tokens: int) -> None:
    text = " ".join(kinds.SENTENCES * 3)
    [cut] = TEXT[kind].cut([text], [tokens])
    kept = ids(kind, cut)
    # Where a character has several tokens, or the end reads otherwise, a few fewer.
    assert tokens - 8 <= len(kept) <= tokens
    common = max(0, len(kept) - 4)
    assert kept[:common] == ids(kind, text)[:common]


def test_a_beginning_that_reads_longer_than_in_the_whole_is_cut_again() -> None:
    last = {"type": "Replace", "pattern": {"Regex": "panda$"}, "content": "panda panda panda"}
    found = text_tokenizer(kinds.definition("wordpiece") | {"normalizer": last})
    text = "panda panda panda panda bear"
    assert found.counts([text, "panda panda"]) == [5, 4]
    for tokens in range(5):
        [cut] = found.cut([text], [tokens])
        assert text.startswith(cut)
        assert found.counts([cut])[0] <= tokens


def test_each_text_has_its_own_limit() -> None:
    assert TEXT["wordpiece"].cut(["panda panda panda", "panda", "panda panda"], [2, 5, 0]) == [
        "panda panda",
        "panda",
        "",
    ]


@pytest.mark.parametrize("kind", ALL_KINDS)
@settings(max_examples=15, deadline=None)
@given(
    unit=texts.filter(lambda text: len(text) > 3),
    times=st.integers(200, 2000),
    tokens=st.integers(0, 30),
)
@example(unit="x" * 101 + " ", times=200, tokens=20)
@example(unit="x", times=20_000, tokens=20)
@example(unit="大", times=20_000, tokens=20)
@example(unit=" ", times=20_000, tokens=20)
def test_what_is_looked_at_begins_like_the_whole(kind: str, unit: str, times: int, tokens: int) -> None:
    text = (unit * times)[:12_000]
    [(start, count), (short, one)] = TEXT[kind].measured([text, "panda"], tokens)
    whole = ids(kind, text)
    assert count == len(ids(kind, start))
    assert (short, one) == ("panda", len(ids(kind, "panda")))
    assert text.startswith(start)
    assert ids(kind, start)[:tokens] == whole[:tokens]
    if start != text:
        assert len(ids(kind, start)) > tokens
    if len(text) > 5_000 < len(whole):
        assert len(start) < len(text)
