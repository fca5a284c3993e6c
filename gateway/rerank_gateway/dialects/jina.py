"""The dialect of Jina, vLLM, GPUStack and Cohere v1: `results` with a `relevance_score`.

The answer has both kinds of accounting, `usage` for clients of the first three and `meta` for Cohere's.
Cohere v2 differs in its defaults only (`cohere.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from rerank_gateway.dialects import fields as read
from rerank_gateway.dialects.call import Fields, Route, Stamp
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.rerank_request import RerankRequest

_DOCUMENTS_PER_SEARCH_UNIT: Final = 100  # Cohere's unit: one query with up to 100 documents


@dataclass(frozen=True, slots=True)
class JinaCall:
    """One query and its documents. `version`: the API version that Cohere's clients are told."""

    model: str
    requests: tuple[RerankRequest]
    return_documents: bool
    listed: bool
    version: str

    def answer(self, rankings: Sequence[Ranking], stamp: Stamp) -> bytes:
        (ranking,), documents = rankings, self.requests[0].documents
        results: list[dict[str, Any]]
        if self.return_documents:
            results = [
                {"index": index, "relevance_score": score, "document": {"text": documents[index]}}
                for index, score in ranking.scores
            ]
        else:
            results = [{"index": index, "relevance_score": score} for index, score in ranking.scores]
        return orjson.dumps(
            {
                "id": f"rerank-{stamp.request_id}",
                **({"object": "list"} if self.listed else {}),
                "model": stamp.model,
                "results": results,
                "usage": {"prompt_tokens": ranking.tokens, "total_tokens": ranking.tokens},
                "meta": {
                    "api_version": {"version": self.version},
                    "billed_units": {"search_units": -(-len(documents) // _DOCUMENTS_PER_SEARCH_UNIT)},
                    "tokens": {"input_tokens": ranking.tokens},
                    **({"truncated": ranking.truncated.as_json()} if ranking.truncated else {}),
                    **({"cached": ranking.cached} if ranking.cached else {}),
                },
            }
        )

    def field(self, place: int, index: int | None) -> str:  # noqa: ARG002 - there is one request
        return "query" if index is None else f"documents[{index}]"


def parse(fields: Fields, route: Route, *, version: str = "1", return_documents: bool = True) -> JinaCall:
    """Read a body. `return_documents` is what holds where it says nothing.

    `rank_fields` is Cohere v1's: the fields of object documents that are ranked.
    """
    return JinaCall(
        model=read.model(fields, route),
        requests=(
            RerankRequest(
                query=read.query(fields),
                documents=read.documents(fields, keys=read.names(fields, "rank_fields", absent=("text",))),
                top_n=read.count(fields, "top_n"),
                max_tokens_per_doc=read.count(fields, "max_tokens_per_doc"),
            ),
        ),
        return_documents=read.flag(fields, "return_documents", absent=return_documents),
        listed=route.listed,
        version=version,
    )
