"""Ids of words, whatever kind of tokenizer a file holds."""

from __future__ import annotations

from typing import Any

import pytest

from rerank_runtime.tokenizer_file import TokenizerFile


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"vocab": {"no": 0, "yes": 1}}},
        {"model": {"vocab": [["no", -1.0], ["yes", -2.0]]}},
        {"model": {"vocab": {"no": 0}}, "added_tokens": [{"content": "yes", "id": 1}]},
    ],
    ids=["bpe", "unigram", "added"],
)
def test_words_are_found(content: dict[str, Any]) -> None:
    file = TokenizerFile(content)
    assert file.ids(("yes", "no", "maybe")) == {"yes": 1, "no": 0}
    assert (file.word(1), file.word(2), file.word(None)) == ("yes", None, None)


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"model": []},
        {"model": {"vocab": 3}, "added_tokens": {"a": 1}},
        {"model": {"vocab": ["yes", [], [["x"], 1]]}, "added_tokens": ["yes", {"id": 1}, {"content": "no"}]},
    ],
)
def test_other_content_holds_no_words(content: Any) -> None:
    assert TokenizerFile(content).ids(("yes", "no")) == {}
