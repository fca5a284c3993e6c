"""Haystack: its rankers."""

from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.jina import JinaRanker
from haystack_integrations.components.rankers.vllm import VLLMRanker


def ranked_by(ranker, query, documents):
    found = ranker.run(query=query, documents=[Document(content=text) for text in documents])["documents"]
    return [(documents.index(document.content), document.score) for document in found]


def haystack_cohere(gateway, key, model, query, documents, top_n):
    top_n = top_n or 10  # this one takes no None
    ranker = CohereRanker(api_base_url=gateway, api_key=Secret.from_token(key), model=model, top_k=top_n)
    return ranked_by(ranker, query, documents)


def haystack_jina(gateway, key, model, query, documents, top_n):
    ranker = JinaRanker(
        base_url=gateway + "/v1/rerank", api_key=Secret.from_token(key), model=model, top_k=top_n
    )
    return ranked_by(ranker, query, documents)


def haystack_vllm(gateway, key, model, query, documents, top_n):
    ranker = VLLMRanker(
        api_base_url=gateway + "/v1", api_key=Secret.from_token(key), model=model, top_k=top_n
    )
    return ranked_by(ranker, query, documents)


CLIENTS = {
    "Haystack CohereRanker": haystack_cohere,
    "Haystack JinaRanker": haystack_jina,
    "Haystack VLLMRanker": haystack_vllm,
}
