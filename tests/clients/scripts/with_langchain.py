"""LangChain: its Cohere and Voyage rerankers."""

from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from langchain_voyageai import VoyageAIRerank


def langchain_cohere(gateway, key, model, query, documents, top_n):
    reranker = CohereRerank(base_url=gateway, cohere_api_key=key, model=model, top_n=top_n)
    ranked = reranker.rerank(documents, query)
    return [(result["index"], result["relevance_score"]) for result in ranked]


def langchain_voyage(gateway, key, model, query, documents, top_n):
    reranker = VoyageAIRerank(base_url=gateway + "/v1", api_key=key, model=model, top_k=top_n)
    ranked = reranker.compress_documents([Document(text) for text in documents], query)
    return [(documents.index(found.page_content), found.metadata["relevance_score"]) for found in ranked]


CLIENTS = {"langchain-cohere": langchain_cohere, "langchain-voyageai": langchain_voyage}
