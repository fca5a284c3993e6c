"""Cohere's v2: as v1, but documents come back only when asked for."""

from rerank_gateway.dialects import jina
from rerank_gateway.dialects.call import Call, Fields, Route


def parse(fields: Fields, route: Route) -> Call:
    """Read a body."""
    return jina.parse(fields, route, version="2", return_documents=False)
