"""cohere, versions 5 and 7: the same code runs in both environments."""

import cohere


def cohere_v2(gateway, key, model, query, documents, top_n):
    client = cohere.ClientV2(api_key=key, base_url=gateway)
    answer = client.rerank(model=model, query=query, documents=documents, top_n=top_n)
    return [(result.index, result.relevance_score) for result in answer.results]


def cohere_v1(gateway, key, model, query, documents, top_n):
    client = cohere.Client(api_key=key, base_url=gateway)
    answer = client.rerank(model=model, query=query, documents=documents, top_n=top_n)
    assert all(result.document.text == documents[result.index] for result in answer.results)
    assert answer.meta.billed_units.search_units == 1
    return [(result.index, result.relevance_score) for result in answer.results]


def cohere_v1_objects(gateway, key, model, query, documents, top_n):
    """Objects, their fields named, no documents back, a limit of tokens."""
    answer = cohere.Client(api_key=key, base_url=gateway).rerank(
        model=model,
        query=query,
        documents=[{"text": text} for text in documents],
        rank_fields=["text"],
        top_n=top_n,
        return_documents=False,
        max_chunks_per_doc=1,
    )
    assert all(result.document is None for result in answer.results)
    return [(result.index, result.relevance_score) for result in answer.results]


def cohere_v2_with_limit(gateway, key, model, query, documents, top_n):
    answer = cohere.ClientV2(api_key=key, base_url=gateway).rerank(
        model=model, query=query, documents=documents, top_n=top_n, max_tokens_per_doc=300
    )
    return [(result.index, result.relevance_score) for result in answer.results]


CLIENTS = {
    "cohere ClientV2": cohere_v2,
    "cohere Client": cohere_v1,
    "cohere Client, objects": cohere_v1_objects,
    "cohere ClientV2, max_tokens_per_doc": cohere_v2_with_limit,
}
