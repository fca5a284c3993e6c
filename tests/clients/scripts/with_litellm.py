"""LiteLLM's SDK: one call, the provider before the model's name."""

import litellm


def by(gateway, key, model, query, documents, top_n, **more):
    answer = litellm.rerank(
        model=model, api_base=gateway, api_key=key, query=query, documents=documents, top_n=top_n, **more
    )
    return [(result["index"], result["relevance_score"]) for result in answer.results]


def hosted_vllm(gateway, key, model, query, documents, top_n):
    name = "hosted_vllm/" + model
    answer = litellm.rerank(
        model=name, api_base=gateway, api_key=key, query=query, documents=documents, top_n=top_n
    )
    return [(result["index"], result["relevance_score"]) for result in answer.results]


def cohere(gateway, key, model, query, documents, top_n):
    return by(gateway, key, "cohere/" + model, query, documents, top_n)


def jina_ai(gateway, key, model, query, documents, top_n):
    return by(gateway, key, "jina_ai/" + model, query, documents, top_n)


def infinity(gateway, key, model, query, documents, top_n):
    return by(gateway, key, "infinity/" + model, query, documents, top_n, return_documents=False)


def voyage(gateway, key, model, query, documents, top_n):
    return by(gateway, key, "voyage/" + model, query, documents, top_n or len(documents))


CLIENTS = {
    "litellm hosted_vllm": hosted_vllm,
    "litellm cohere": cohere,
    "litellm jina_ai": jina_ai,
    "litellm infinity": infinity,
    "litellm voyage": voyage,
}
