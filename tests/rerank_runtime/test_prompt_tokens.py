"""Prompt tokens computed beforehand, against what vLLM 0.32.0 answered for the same texts."""

from __future__ import annotations

from rerank_runtime import chat_template
from rerank_runtime.families import jina_v3
from rerank_runtime.options import Method
from rerank_runtime.prompt_tokens import expected
from rerank_runtime.verification.cases import Case
from tests.rerank_runtime.conftest import MINILM
from tests.rerank_runtime.support import serve_plan

QUERY = "What is a panda?"
PANDA = (
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear "
    "species endemic to China."
)
# Its `usage.prompt_tokens` for this query and the documents PANDA, "it is a bear" and "hi".
VLLM_CROSS_ENCODER, VLLM_COSINE = 60, 49
HI = 3
HI_WITH_QUERY = 9


def test_a_cross_encoder_reads_the_query_with_each_document() -> None:
    case = Case(QUERY, PANDA, "it is a bear")
    assert expected(MINILM, serve_plan(Method.CROSS_ENCODER), [case]) == (VLLM_CROSS_ENCODER - HI_WITH_QUERY,)


def test_an_embedding_model_reads_the_query_once() -> None:
    case = Case(QUERY, PANDA, "it is a bear")
    assert expected(MINILM, serve_plan(Method.COSINE), [case]) == (VLLM_COSINE - HI,)


def test_long_texts_are_neither_cut_nor_padded() -> None:
    # The file that MiniLM ships cuts at 128 tokens and pads to them.
    case = Case("a", "panda " * 200, "hi")
    assert expected(MINILM, serve_plan(Method.COSINE), [case]) == (3 + 202 + 3,)


def test_a_prompt_is_counted_with_its_template() -> None:
    plan = serve_plan(template=chat_template.load("nemotron_rerank"))
    case = Case("a", "bear", "panda bear")
    # [CLS] question : a passage : … [SEP]
    assert expected(MINILM, plan, [case]) == (7 + 1 + 7 + 2,)


def test_a_listwise_model_reads_all_documents_once() -> None:
    case = Case("a", "bear", "panda bear")
    alone = expected(
        MINILM, serve_plan(Method.COSINE), [Case("", jina_v3.prompt("a", ["panda bear", "bear"]), "")]
    )
    # Two empty texts are [CLS] [SEP] each.
    assert expected(MINILM, serve_plan(pointwise=False), [case]) == (alone[0] - 4,)
