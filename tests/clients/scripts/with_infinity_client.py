"""infinity-client."""

from infinity_client import AuthenticatedClient
from infinity_client.api.default import rerank
from infinity_client.models import RerankInput


def infinity(gateway, key, model, query, documents, top_n):
    client = AuthenticatedClient(base_url=gateway, token=key, raise_on_unexpected_status=True)
    asked = RerankInput(query=query, documents=documents, model=model, top_n=top_n)
    answer = rerank.sync(client=client, body=asked)
    return [(result.index, result.relevance_score) for result in answer.results]


CLIENTS = {"infinity-client": infinity}
