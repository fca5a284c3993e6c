"""LlamaIndex: its postprocessors."""

from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.xinference_rerank import XinferenceRerank


def ranked_by(reranker, query, documents):
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in documents]
    found = reranker.postprocess_nodes(nodes, QueryBundle(query))
    return [(documents.index(entry.node.text), entry.score) for entry in found]


def llama_index_cohere(gateway, key, model, query, documents, top_n):
    reranker = CohereRerank(base_url=gateway, api_key=key, model=model, top_n=top_n)
    return ranked_by(reranker, query, documents)


def llama_index_jina(gateway, key, model, query, documents, top_n):
    reranker = JinaRerank(base_url=gateway + "/v1", api_key=key, model=model, top_n=top_n)
    return ranked_by(reranker, query, documents)


def llama_index_tei(gateway, key, model, query, documents, top_n):
    reranker = TextEmbeddingInference(
        base_url=f"{gateway}/models/{model}", auth_token=f"Bearer {key}", top_n=top_n
    )
    return ranked_by(reranker, query, documents)


def llama_index_xinference(gateway, key, model, query, documents, top_n):
    with_key = gateway.replace("://", f"://any:{key}@")
    reranker = XinferenceRerank(base_url=with_key, model=model, top_n=top_n)
    return ranked_by(reranker, query, documents)


CLIENTS = {
    "LlamaIndex CohereRerank": llama_index_cohere,
    "LlamaIndex JinaRerank": llama_index_jina,
    "LlamaIndex TextEmbeddingInference": llama_index_tei,
    "LlamaIndex XinferenceRerank": llama_index_xinference,
}
