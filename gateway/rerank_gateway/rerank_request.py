"""What the gateway understands of any request: one query, the documents to rank for it. Pure.

A client's body is parsed whole (`dialects`) and rebuilt here, so what was checked is exactly what a model
sees: a repeated JSON key, an unknown field or a null cannot slip past.
"""

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A valid request. `top_n` None: all documents; `max_tokens_per_doc` None: cut only as the model is
    told to.
    """

    query: str
    documents: list[str]
    top_n: int | None
    max_tokens_per_doc: int | None


def backend_body(request: RerankRequest, model: str) -> bytes:
    """The body for a replica of the model of that name: an allow-list of fields, none of them null."""
    fields: dict[str, Any] = {
        "model": model,
        "query": request.query,
        "documents": request.documents,
    }
    if request.top_n is not None:
        fields["top_n"] = min(request.top_n, len(request.documents))
    if request.max_tokens_per_doc is not None:
        # One more limit beside the model's own. The runtime takes any: Cohere's clients send 4096 to every
        # model.
        fields["max_tokens_per_doc"] = request.max_tokens_per_doc
    return orjson.dumps(fields)
