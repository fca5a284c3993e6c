"""Strings of control tokens in users' texts, against tokenizers of every type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerank_runtime.control_tokens import ControlTokens
from tests.rerank_runtime import tokenizer_kinds as kinds

ALL_KINDS = (*kinds.KINDS, "roberta", "gemma")
STRINGS = {
    "wordpiece": {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"},
    "unigram": {"<s>", "<pad>", "</s>", "<unk>", "<mask>"},
    "roberta": {"<s>", "<pad>", "</s>", "<unk>", "<mask>"},
    "qwen": {
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|rerank_token|>",
        "<|embed_token|>",
        "<tool_call>",
        "</tool_call>",
        "<|fim_prefix|>",
        "<think>",
        "</think>",
    },
    # Neither runs of spaces and newlines nor HTML tags of the trained vocabulary: those are text.
    "gemma": {"<pad>", "<eos>", "<bos>", "<unk>"},
}


def control(
    definition: dict[str, Any], config: dict[str, Any] | None = None, template: str | None = None
) -> ControlTokens:
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    definition = definition | {"added_tokens": [flags | token for token in definition["added_tokens"]]}
    return ControlTokens.of(Tokenizer.from_str(json.dumps(definition)), definition, config or {}, template)


CONTROL = {kind: control(kinds.definition(kind)) for kind in ALL_KINDS}


def control_ids(kind: str) -> set[int]:
    """Ids that no text may have. The unknown token is none of them: unknown characters make it."""
    found = (kinds.tokenizer(kind).token_to_id(text) for text in STRINGS[kind] - {"[UNK]", "<unk>"})
    return {token for token in found if token is not None}


def ids(kind: str, text: str) -> list[int]:
    tokenizer = kinds.tokenizer(kind)
    found = tokenizer.encode(text, add_special_tokens=False)
    # Of MiniLM's padding only the text's own.
    return [token for token, real in zip(found.ids, found.attention_mask, strict=True) if real]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_which_strings_are_control_tokens(kind: str) -> None:
    assert set(CONTROL[kind].strings) == STRINGS[kind]


def test_without_the_rule_they_would_be() -> None:
    for kind in ALL_KINDS:
        for string in STRINGS[kind] - {"<unk>", "[UNK]"}:
            assert control_ids(kind).intersection(ids(kind, f"a {string} b"))


@pytest.mark.parametrize(
    ("text", "inert"),
    [
        ("a<|im_end|>b", "a< |im_end|>b"),
        ("<think>\n\n</think>", "< think>\n\n< /think>"),
        ("<|im_start|><|im_start|>", "< |im_start|>< |im_start|>"),
        ("<<|im_end|>|im_end|>", "<< |im_end|>|im_end|>"),
        ("a < b, <b>bold</b>, <|im_en|>", "a < b, <b>bold</b>, <|im_en|>"),
        ("", ""),
    ],
)
def test_a_space_goes_behind_the_first_character(text: str, inert: str) -> None:
    assert CONTROL["qwen"].inert(text) == inert


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_text_without_any_stays_as_it_is(kind: str) -> None:
    assert [CONTROL[kind].inert(text) for text in kinds.SENTENCES] == kinds.SENTENCES


@pytest.mark.parametrize(
    "text",
    [
        "＜/s＞",  # NFKC makes it </s>
        "﹤s>",
        "<\x01/s>",  # the normaliser drops the control character
        "< \u200b/s>".replace(" ", ""),
        "</\x7fs>",
        "<\u00adpad>",
        "</s＞",
    ],
)
def test_what_only_normalising_makes_a_control_token(text: str) -> None:
    found = CONTROL["unigram"].inert(f"a panda {text} b")
    assert not control_ids("unigram").intersection(ids("unigram", found))


def test_normalised_text_is_only_handed_on_where_it_must_be() -> None:
    # A fullwidth < alone is no reason to touch the text.
    assert CONTROL["unigram"].inert("1 ＜ 2 and ﷺ") == "1 ＜ 2 and ﷺ"
    assert CONTROL["unigram"].inert("ﷺ ＜/s＞").endswith("< /s>")


pieces = st.one_of(
    st.sampled_from(sorted(set().union(*STRINGS.values()))),
    st.sampled_from(
        ["<", ">", "|", "/", "[", "]", "s", "im_end", " ", "\n", "\x01", "＜", "﹥", "\u200b", "\u0338"]
    ),
    st.text(max_size=4),
)


@pytest.mark.parametrize("kind", ALL_KINDS)
@settings(max_examples=150, deadline=None)
@given(parts=st.lists(pieces, max_size=12))
def test_no_text_ever_has_a_control_token(kind: str, parts: list[str]) -> None:
    text = "".join(parts)
    found = CONTROL[kind].inert(text)
    assert not control_ids(kind).intersection(ids(kind, found))
    assert CONTROL[kind].inert(found) == found


def test_strings_that_overlap_are_parted_again() -> None:
    assert ControlTokens(["<a><", "<b>"]).inert("<a><b>") == "< a>< b>"
    assert ControlTokens(["[["]).inert("[[[[[[") == "[ [ [ [ [ ["


def test_ten_thousand_of_them_are_like_the_escaped_text() -> None:
    text = "<|im_end|>" * 10_000
    assert CONTROL["qwen"].inert(text) == "< |im_end|>" * 10_000


@pytest.mark.parametrize(
    ("token", "template", "is_control"),
    [
        ({"content": "<X>", "special": True}, None, True),
        ({"content": "word", "special": True}, None, True),
        ({"content": "<X>", "special": False}, None, True),  # shaped like a mark and not in the vocabulary
        ({"content": "covid", "special": False}, None, False),  # a word of somebody's subject
        ({"content": "->", "special": False}, None, False),
        ({"content": "   ", "special": False}, None, False),
        ({"content": "\n\n", "special": True}, None, False),  # nothing to put a space into
        ({"content": "x", "special": True}, None, False),
        ({"content": "[[ ## q ## ]]", "special": False}, None, True),
        ({"content": "Passage:", "special": False}, None, False),
        ({"content": "Passage:", "special": False}, "Query: {q} Passage: {d}", True),
        ({"content": "panda", "special": False}, "Query: {q}", False),
    ],
)
def test_which_added_tokens_count(token: dict[str, object], template: str | None, is_control: bool) -> None:
    definition = kinds.definition("qwen") | {"added_tokens": [{"id": 9000, "normalized": False, **token}]}
    assert control(definition, {}, template).strings == ((token["content"],) if is_control else ())


def test_a_tag_of_the_vocabulary_is_text_unless_it_is_special() -> None:
    table = {"id": 260, "content": "<table>", "special": False, "normalized": False}
    definition = kinds.definition("gemma")
    for special in (False, True):
        found = control(definition | {"added_tokens": [table | {"special": special}]})
        assert found.strings == (("<table>",) if special else ())


@pytest.mark.parametrize(
    "config",
    [
        {"eos_token": "<|end|>"},
        {"eos_token": {"content": "<|end|>"}},
        {"additional_special_tokens": ["<|end|>"]},
        {"extra_special_tokens": {"image_token": "<|end|>"}},
        {"added_tokens_decoder": {"7": {"content": "<|end|>", "special": True}}},
    ],
)
def test_tokenizer_config_names_more(config: dict[str, object]) -> None:
    found = control(kinds.definition("qwen"), config)
    assert found.inert("a<|end|>") == "a< |end|>"


def test_a_normalised_added_token_is_found_in_normalised_text() -> None:
    mark = {"id": 9000, "content": "<Mark>", "special": True, "normalized": True}
    definition = kinds.definition("wordpiece") | {"added_tokens": [mark]}
    for text in ("a <MÁRK> b", "a <MARK> b"):
        assert control(definition).inert(text) == "a < mark> b"


def test_a_tokenizer_without_added_tokens() -> None:
    assert control(kinds.definition("qwen") | {"added_tokens": []}).inert("a<|im_end|>") == "a<|im_end|>"
