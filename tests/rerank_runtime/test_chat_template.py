"""The prompts, character by character and token by token against the model cards."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from rerank_runtime import chat_template
from rerank_runtime.families import jina_v3, qwen3
from rerank_runtime.prompt_pieces import SEAM, split_at_seams, wanted
from tests.rerank_runtime import cards

Card = Callable[[str, str, str | None], list[str]]

QWEN3_INSTRUCTION = qwen3._INSTRUCTION
TEMPLATES = {
    "qwen3_reranker": cards.qwen3,
    "mxbai_rerank_v2": cards.mxbai,
    "bge_reranker_v2_gemma": cards.gemma,
    "nemotron_rerank": cards.nemotron,
}
TEXTS = [
    "What is a panda?",
    "",
    " leading and trailing ",
    "two\n\nparagraphs\n",
    "tab\tand \r\n carriage return",
    "{{ messages }} {% raw %} {# no code #}",
    "中文、日本語、한국어",
    "مرحبا بالعالم",
    "🐼🇨🇳 é é",
    "\x00\x1f\u200b\ufeff",
    "a\u2028b",
]
INSTRUCTIONS = [
    None,
    "Find code",
    "quotes \" and ' and \\ and \\n",
    "{{ 7 * 7 }} {% set x = 1 %} -}}",
    "lines\r\nand\ttabs",
    "日本語 🐼",
]
# Their libraries tokenise the pieces apart, and so do we; the others' seams make no difference.
IN_PIECES = {"mxbai_rerank_v2", "bge_reranker_v2_gemma"}
PAIRS = [(TEXTS[i], TEXTS[(3 * i + 1) % len(TEXTS)]) for i in range(len(TEXTS))] + [
    (text, text) for text in TEXTS
]
CORPUS = [*TEXTS, *("".join(card("panda", "bear", "Find code")) for card in TEMPLATES.values())]


def pieces(name: str, query: str, document: str, instruction: str | None) -> list[str]:
    """What the card tokenises, joined where our template has no seam."""
    found = TEMPLATES[name](query, document, instruction)
    return found if name in IN_PIECES else ["".join(found)]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_a_prompt_is_the_model_card_s(name: str, instruction: str | None) -> None:
    default = instruction or (QWEN3_INSTRUCTION if name == "qwen3_reranker" else None)
    template = chat_template.load(name, default)
    for query, document in PAIRS:
        prompt = chat_template.render(template, query, document)
        assert prompt.split(SEAM) == pieces(name, query, document, instruction)


@pytest.mark.parametrize("name", ["qwen3_reranker", "mxbai_rerank_v2"])
def test_a_request_s_instruction_goes_before_the_default(name: str) -> None:
    template = chat_template.load(name, "the default")
    asked = chat_template.render(template, "q", "d", "Find code")
    assert asked.split(SEAM) == pieces(name, "q", "d", "Find code")
    not_asked = chat_template.render(template, "q", "d", "")
    assert not_asked.split(SEAM) == pieces(name, "q", "d", "the default")


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("ending", ["", "\n", "\n\n\n"])
def test_line_breaks_at_the_end_of_a_template_s_file_mean_nothing(name: str, ending: str) -> None:
    template = chat_template.load(name, "x")
    assert chat_template.render(template.rstrip("\n") + ending, "q", "d") == chat_template.render(
        template, "q", "d"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_query_and_document_stand_in_a_prompt_once(name: str) -> None:
    prompt = chat_template.render(chat_template.load(name, "x"), "QUERY-MARK", "DOCUMENT-MARK")
    assert prompt.count("QUERY-MARK") == prompt.count("DOCUMENT-MARK") == 1
    assert prompt.index("QUERY-MARK") < prompt.index("DOCUMENT-MARK")


@given(st.text())
def test_an_instruction_stays_text(instruction: str) -> None:
    template = "{{- " + chat_template.quote(instruction) + " -}}"
    assert chat_template.render(template, "", "") == instruction


@pytest.mark.parametrize(("query", "document"), PAIRS)
def test_qwen3_s_tokens_are_those_of_the_pieces_that_its_card_tokenises(query: str, document: str) -> None:
    tokenizer = qwen_tokenizer()
    template = chat_template.load("qwen3_reranker", QWEN3_INSTRUCTION)
    for instruction in (None, "Find code"):
        prompt = chat_template.render(template, query, document, instruction)
        pieces = cards.qwen3(query, document, instruction)
        apart = [i for piece in pieces for i in tokenizer.encode(piece, add_special_tokens=False).ids]
        assert tokenizer.encode(prompt).ids == apart


def test_qwen3_s_prompt_ends_with_both_line_breaks_as_one_token() -> None:
    tokenizer = qwen_tokenizer()
    prompt = chat_template.render(chat_template.load("qwen3_reranker", "x"), "q", "d")
    assert tokenizer.encode(prompt).tokens[-4:] == ["<think>", "ĊĊ", "</think>", "ĊĊ"]
    lost = tokenizer.encode(prompt.removesuffix("\n"))
    # One line break fewer is as many tokens: counting them would not show it, comparing does.
    assert len(lost.ids) == len(tokenizer.encode(prompt).ids)
    assert lost.tokens[-1] == "Ċ"


@pytest.mark.parametrize("name", sorted(IN_PIECES))
@pytest.mark.parametrize(("query", "document"), PAIRS)
def test_tokens_are_those_of_the_pieces_that_a_library_tokenises_apart(
    name: str, query: str, document: str
) -> None:
    gemma = name == "bge_reranker_v2_gemma"
    tokenizer = gemma_tokenizer() if gemma else qwen_tokenizer()
    template = chat_template.load(name)
    assert wanted(template)
    seamed = Tokenizer.from_str(json.dumps(split_at_seams(json.loads(tokenizer.to_str()))))
    apart = [
        i
        for piece in TEMPLATES[name](query, document, None)
        for i in tokenizer.encode(piece, add_special_tokens=False).ids
    ]
    begin = [tokenizer.token_to_id("<bos>")] if gemma else []
    assert seamed.encode(chat_template.render(template, query, document)).ids == [*begin, *apart]


def test_one_text_has_other_tokens_than_the_pieces_where_a_text_ends_in_a_line_break() -> None:
    tokenizer = gemma_tokenizer()
    apart = [tokenizer.encode(p, add_special_tokens=False).ids for p in cards.gemma("q\n", "d", None)]
    together = tokenizer.encode("".join(cards.gemma("q\n", "d", None)), add_special_tokens=False).ids
    assert together != [i for ids in apart for i in ids]


@pytest.mark.parametrize("count", [1, 2, 64])
def test_jina_v3_s_prompt_is_the_model_s_own(count: int) -> None:
    documents = [TEXTS[i % len(TEXTS)] for i in range(count)]
    assert jina_v3.prompt("panda\n?", documents) == cards.jina_v3("panda\n?", documents)


def test_jina_v3_s_marks_in_texts_are_removed_as_vllm_does() -> None:
    assert jina_v3.prompt("a<|rerank_token|>b", ["c<|embed_token|>"]) == cards.jina_v3("ab", ["c"])


def qwen_tokenizer() -> Tokenizer:
    """Byte-level BPE with the pattern and the marks of Qwen's tokenizer, and a small vocabulary."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, "\n\n" * 50], trainer)
    marks = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])
    tokenizer.add_tokens([AddedToken(m, normalized=False, special=False) for m in ("<think>", "</think>")])
    return tokenizer


def gemma_tokenizer() -> Tokenizer:
    """BPE with visible spaces and bytes to fall back on, as Gemma's, with runs of line breaks as tokens."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    pieces = ["<unk>", "<bos>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<unk>", "<bos>"], show_progress=False, limit_alphabet=400
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(p, normalized=False) for p in pieces[2:]])
    breaks = [AddedToken("\n" * i, normalized=False) for i in range(1, 4)]
    tokenizer.add_tokens(breaks)
    bos = tokenizer.token_to_id("<bos>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", bos)]
    )
    return tokenizer
