"""What applications send, written out from their sources, and what they read of the answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import MINTED, PANDA, Running
from tests.rerank_gateway.test_rerank import basic

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUERY = "what is a panda bear"
COMMON = {"model": "minilm", "query": QUERY, "documents": PANDA}
RANKED = [(2, 0.8), (1, 0.6), (0, 0.0)]


@dataclass(frozen=True)
class Application:
    """`read` gives (index, score) as the application does, and fails where the application would."""

    path: str
    body: dict[str, Any]
    read: Callable[[Any], list[tuple[int, float]]]
    authorization: str = f"Bearer {MINTED.text}"


def results(answer: Any) -> list[tuple[int, float]]:
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


def open_webui(answer: Any) -> list[tuple[int, float]]:
    """Wants a score for every document, in the order of their indexes."""
    scores = [entry["relevance_score"] for entry in sorted(answer["results"], key=lambda r: int(r["index"]))]
    assert len(scores) == len(PANDA)
    return sorted(enumerate(scores), key=lambda entry: -entry[1])


def dify(answer: Any) -> list[tuple[int, float]]:
    """Takes the text from the answer, a string or an object with one."""
    assert [result["document"]["text"] for result in answer["results"]] == [PANDA[i] for i, _ in RANKED]
    return results(answer)


def fastgpt(answer: Any) -> list[tuple[int, float]]:
    assert answer["id"]
    assert answer["meta"]["tokens"]["input_tokens"] == 43
    return results(answer)


def ragflow_jina(answer: Any) -> list[tuple[int, float]]:
    assert answer["usage"]["total_tokens"] == 43
    return results(answer)


def tei(answer: Any) -> list[tuple[int, float]]:
    return [(entry["index"], entry["score"]) for entry in answer]


APPLICATIONS = {
    # backend/open_webui/retrieval/models/external.py; the URL is written in full by the user.
    "Open WebUI": Application("/v1/rerank", {**COMMON, "top_n": 3}, open_webui),
    # dify_plugin/interfaces/model/openai_compatible/rerank.py: its base URL may end in /v1 or not.
    "Dify": Application("/v1/rerank", {**COMMON, "top_n": None, "return_documents": True}, dify),
    "Dify, bare URL": Application("/rerank", {**COMMON, "top_n": 3, "return_documents": True}, dify),
    # models/huggingface_tei of Dify's plugins.
    "Dify, TEI": Application("/models/minilm/rerank", {"query": QUERY, "texts": PANDA}, tei),
    # rag/llm/rerank_model.py, one for each of its providers.
    "RAGFlow, Jina": Application("/v1/rerank", {**COMMON, "top_n": 3}, ragflow_jina),
    "RAGFlow, OpenAI-API-Compatible": Application("/rerank", {**COMMON, "top_n": 3}, results),
    "RAGFlow, vLLM and Cohere": Application(
        "/v1/rerank", {**COMMON, "top_n": 3, "return_documents": False}, results
    ),
    "RAGFlow, GPUStack": Application("/v1/rerank", {**COMMON, "top_n": 3}, results),
    "RAGFlow, Xinference": Application(
        "/v1/rerank", {**COMMON, "return_documents": "true", "return_len": "true"}, results
    ),
    # Sends no key; its URL, which gets http:// before it, may hold one.
    "RAGFlow, HuggingFace": Application(
        "/models/minilm/rerank",
        {"query": QUERY, "texts": PANDA, "raw_scores": False, "truncate": True},
        tei,
        basic("any", MINTED.text),
    ),
    # packages/service/core/ai/rerank/index.ts; `defaultConfig` of the model's settings is added.
    "FastGPT": Application("/v1/rerank", COMMON, fastgpt),
    "FastGPT, with settings": Application("/v1/rerank", {**COMMON, "return_documents": False}, fastgpt),
    # lightrag/rerank.py: Jina and Cohere bindings, which take a whole URL.
    "LightRAG, Jina": Application("/v1/rerank", {**COMMON, "top_n": 3, "return_documents": False}, results),
    "LightRAG, Cohere": Application("/v2/rerank", {**COMMON, "max_tokens_per_doc": 4096}, results),
}


@pytest.mark.parametrize("name", APPLICATIONS)
async def test_an_application_ranks(gateway: Running, engine: FakeEngine, name: str) -> None:
    application = APPLICATIONS[name]
    answer = await gateway.rerank(
        application.body,
        path=application.path,
        key=None,
        headers={"Authorization": application.authorization},
    )
    assert answer.status == 200, answer.body
    assert application.read(answer.body) == RANKED
    assert None not in engine.seen[0].body.values()


@pytest.mark.parametrize("name", APPLICATIONS)
async def test_an_application_is_told_what_is_wrong(gateway: Running, name: str) -> None:
    """They show the status and the text of the answer, or one of the fields where a reason may stand."""
    application = APPLICATIONS[name]
    answer = await gateway.rerank(application.body, path=application.path, key=MINTED.text[:-1])
    assert answer.status == 401
    assert answer.body["detail"] == answer.body["message"] == answer.body["error"]["message"]
    assert "key is not valid" in answer.body["detail"]
