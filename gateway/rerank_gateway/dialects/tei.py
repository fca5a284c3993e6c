"""The dialect of text-embeddings-inference: `texts`, no model in the body, a bare list in the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rerank_gateway import errors
from rerank_gateway.dialects import fields as read
from rerank_gateway.dialects.call import Fields, Route, Stamp, refuse_cut
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.rerank_request import RerankRequest


@dataclass(frozen=True, slots=True)
class TeiCall:
    """One query and its texts."""

    model: str
    requests: tuple[RerankRequest]
    return_text: bool
    truncate: bool

    def answer(self, rankings: Sequence[Ranking], stamp: Stamp) -> bytes:  # noqa: ARG002 - has no room for it
        if not self.truncate:
            refuse_cut(self, rankings, "truncate")
        (ranking,), texts = rankings, self.requests[0].documents
        entries: list[dict[str, Any]] = [{"index": index, "score": score} for index, score in ranking.scores]
        if self.return_text:
            for entry in entries:
                entry["text"] = texts[entry["index"]]
        return orjson.dumps(entries)

    def field(self, place: int, index: int | None) -> str:  # noqa: ARG002 - there is one request
        return "query" if index is None else f"texts[{index}]"


def speaks(fields: Fields) -> bool:
    """Whether the body is TEI's."""
    return fields.get("texts") is not None


def parse(fields: Fields, route: Route) -> TeiCall:
    """Read a body.

    Raises:
        ApiError: 400, also for `raw_scores`: how scores are scaled is the model's, not the request's.
    """
    if read.flag(fields, "raw_scores", absent=False):
        raise errors.invalid(
            '"raw_scores" must be false: scores come as the model\'s status.model.scoring.range says.',
            param="raw_scores",
        )
    return TeiCall(
        model=route.model
        or read.text(fields, "model", "Send it, or put it into the path: POST /models/MODEL/rerank."),
        requests=(
            RerankRequest(
                query=read.query(fields),
                documents=read.documents(fields, "texts"),
                top_n=None,
                max_tokens_per_doc=None,
            ),
        ),
        return_text=read.flag(fields, "return_text", absent=False),
        truncate=read.flag(fields, "truncate", absent=True),
    )
