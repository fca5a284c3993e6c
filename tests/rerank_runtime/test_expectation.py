"""What the engine must count, with and without the instruction."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_runtime import chat_template
from rerank_runtime.expectation import of_built_in_cases, without_instruction
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.verification.cases import BUILT_IN
from tests.rerank_runtime.conftest import MINILM
from tests.rerank_runtime.support import serve_plan

INSTRUCTION = 'Find the "page" that answers,\nplease.'
TEMPLATE = chat_template.load("qwen3_reranker", INSTRUCTION)


def test_pairs_have_no_instruction() -> None:
    expected = of_built_in_cases(MINILM, serve_plan())
    assert set(expected) == set(BUILT_IN)
    assert all(each.tokens > 10 and each.without_instruction is None for each in expected.values())


def test_a_template_without_its_instruction_has_fewer_tokens() -> None:
    plan = serve_plan(template=TEMPLATE, instruction=INSTRUCTION)
    for expected in of_built_in_cases(MINILM, plan).values():
        assert expected.without_instruction is not None
        assert expected.without_instruction < expected.tokens


def test_only_the_instruction_is_taken_away() -> None:
    bare = without_instruction(serve_plan(template=TEMPLATE, instruction=INSTRUCTION))
    assert bare is not None
    assert bare.render("q", "d") == chat_template.render(TEMPLATE, "q", "d").replace(INSTRUCTION, "")
    assert without_instruction(serve_plan(template=TEMPLATE)) is None


@pytest.mark.parametrize("content", ["", "{}", '{"version": "1.0", "model": {"type": "Nonsense"}}'])
def test_a_tokenizer_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(Failure) as refusal:
        of_built_in_cases(tmp_path, serve_plan())
    assert refusal.value.reason == Reason.TOKENIZER_INVALID
