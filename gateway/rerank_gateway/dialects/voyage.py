"""Voyage's dialect: `top_k` where others say `top_n`, results under `data`, documents as bare strings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from rerank_gateway.dialects import fields as read
from rerank_gateway.dialects.call import Fields, Route, Stamp, refuse_cut
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.rerank_request import RerankRequest

# Its clients write this field last. What ends like this is the body's own field: text would end in a quote.
_END: Final = re.compile(rb'"truncation"\s*:\s*(?:true|false)\s*\}\s*$')


@dataclass(frozen=True, slots=True)
class VoyageCall:
    """One query and its documents."""

    model: str
    requests: tuple[RerankRequest]
    return_documents: bool
    truncation: bool

    def answer(self, rankings: Sequence[Ranking], stamp: Stamp) -> bytes:
        if not self.truncation:
            refuse_cut(self, rankings, "truncation")
        (ranking,), documents = rankings, self.requests[0].documents
        data: list[dict[str, Any]] = [
            {"index": index, "relevance_score": score} for index, score in ranking.scores
        ]
        if self.return_documents:
            for entry in data:
                entry["document"] = documents[entry["index"]]
        usage = {"total_tokens": ranking.tokens}
        return orjson.dumps({"object": "list", "data": data, "model": stamp.model, "usage": usage})

    def field(self, place: int, index: int | None) -> str:  # noqa: ARG002 - there is one request
        return "query" if index is None else f"documents[{index}]"


def speaks(fields: Fields) -> bool:
    """Whether the body is Voyage's: only its clients send `top_k` or `truncation`."""
    return fields.get("top_k") is not None or fields.get("truncation") is not None


def is_end(tail: bytes) -> bool:
    """Whether a body that was not parsed is Voyage's, by its end (`exchange.TAIL_BYTES` of it)."""
    return _END.search(tail) is not None


def parse(fields: Fields, route: Route) -> VoyageCall:
    """Read a body."""
    return VoyageCall(
        model=read.model(fields, route),
        requests=(
            RerankRequest(
                query=read.query(fields),
                documents=read.documents(fields),
                top_n=read.count(fields, "top_k"),
                max_tokens_per_doc=None,
            ),
        ),
        return_documents=read.flag(fields, "return_documents", absent=False),
        truncation=read.flag(fields, "truncation", absent=True),
    )
