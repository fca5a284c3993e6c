"""xinference-client."""

from xinference_client.client.restful.restful_client import RESTfulRerankModelHandle


def xinference(gateway, key, model, query, documents, top_n):
    handle = RESTfulRerankModelHandle(model, gateway, {"Authorization": f"Bearer {key}"})
    answer = handle.rerank(documents, query, top_n=top_n)
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


CLIENTS = {"xinference-client": xinference}
