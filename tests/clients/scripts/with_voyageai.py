"""voyageai, versions 0.3 and 0.5."""

import voyageai


def voyage(gateway, key, model, query, documents, top_n):
    client = voyageai.Client(api_key=key, base_url=gateway + "/v1")
    answer = client.rerank(query, documents, model=model, top_k=top_n)
    assert answer.total_tokens > 0
    return [(result.index, result.relevance_score) for result in answer.results]


CLIENTS = {"voyageai Client": voyage}
