"""vLLM's score API: pairs of texts, one score each, in the order of the request.

1:N and N:N. Replicas are only ever asked to rerank, so pairs are grouped by their first text: each distinct
one becomes a request with all the texts that it is paired with. The four pairs of field names are tried in
vLLM's order (`vllm/entrypoints/pooling/scoring/protocol.py`, ScoreRequest).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from rerank_gateway import errors
from rerank_gateway.dialects import fields as read
from rerank_gateway.dialects.call import Fields, Route, Stamp
from rerank_gateway.rerank_answer import MAX_TOLD, Ranking, Truncated
from rerank_gateway.rerank_request import RerankRequest

# Each is a request to a replica.
MAX_DISTINCT_QUERIES: Final = 1000
_PAIRS: Final = (
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
)


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """`names` are those of the two fields. `places[i][j]` is the place in the answer of document j of
    request i.
    """

    model: str
    requests: list[RerankRequest]
    places: list[Sequence[int]]
    names: tuple[str, str]

    def answer(self, rankings: Sequence[Ranking], stamp: Stamp) -> bytes:
        scores = {
            places[index]: score
            for places, ranking in zip(self.places, rankings, strict=True)
            for index, score in ranking.scores
        }
        tokens = sum(ranking.tokens for ranking in rankings)
        return orjson.dumps(
            {
                "id": f"score-{stamp.request_id}",
                "object": "list",
                "created": stamp.created,
                "model": stamp.model,
                "data": [
                    {"index": place, "object": "score", "score": scores[place]}
                    for place in range(len(scores))
                ],
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
                **self._meta(rankings),
            }
        )

    def _meta(self, rankings: Sequence[Ranking]) -> dict[str, Any]:
        """What was cut or known, told as the other dialects do; vLLM itself has no word for it."""
        cached = sum(ranking.cached for ranking in rankings)
        meta = {**self._truncated(rankings), **({"cached": cached} if cached else {})}
        return {"meta": meta} if meta else {}

    def _truncated(self, rankings: Sequence[Ranking]) -> dict[str, Any]:
        cut = [(places, r.truncated) for places, r in zip(self.places, rankings, strict=True) if r.truncated]
        if not cut:
            return {}
        documents = sorted(places[index] for places, truncated in cut for index in truncated.documents)
        whole = Truncated(
            count=sum(truncated.count for _, truncated in cut),
            documents=tuple(documents[:MAX_TOLD]),
            query=any(truncated.query for _, truncated in cut),
        )
        return {"truncated": whole.as_json()}

    def field(self, place: int, index: int | None) -> str:
        first, second = self.names
        if index is None:
            return f"{first}[{self.places[place][0]}]" if len(self.requests) > 1 else first
        return f"{second}[{self.places[place][index]}]"


def parse(fields: Fields, route: Route) -> ScoreCall:
    """Read a body."""
    first, second = _pair(fields)
    queries, documents = _texts(fields, first), _texts(fields, second)
    limit = read.count(fields, "max_tokens_per_doc")
    if len(queries) == 1:
        grouped: dict[str, Sequence[int]] = {queries[0]: range(len(documents))}
    elif len(queries) == len(documents):
        grouped = _grouped(queries)
    else:
        raise errors.invalid(
            f'"{first}" holds {len(queries)} texts and "{second}" {len(documents)}: '
            "send one and any number, or as many of both.",
            param=first,
        )
    if len(grouped) > MAX_DISTINCT_QUERIES:
        raise errors.invalid(
            f'"{first}" holds {len(grouped)} different texts, more than {MAX_DISTINCT_QUERIES}. '
            "Send them in several requests.",
            param=first,
        )
    return ScoreCall(
        model=read.model(fields, route),
        requests=[
            RerankRequest(query, [documents[place] for place in places], None, limit)
            for query, places in grouped.items()
        ],
        places=list(grouped.values()),
        names=(first, second),
    )


def _pair(fields: Fields) -> tuple[str, str]:
    for pair in _PAIRS:
        if all(fields.get(name) is not None for name in pair):
            return pair
    known = ", ".join(f'"{first}" and "{second}"' for first, second in _PAIRS)
    half = next((pair for pair in _PAIRS if any(fields.get(name) is not None for name in pair)), _PAIRS[0])
    missing = next(name for name in half if fields.get(name) is None)
    raise errors.invalid(f'"{missing}" is missing. Send one of {known}.', param=missing)


def _texts(fields: Fields, name: str) -> list[str]:
    value = fields[name]
    return read.texts(value if isinstance(value, list) else [value], name)


def _grouped(queries: list[str]) -> dict[str, Sequence[int]]:
    places: dict[str, list[int]] = {}
    for place, query in enumerate(queries):
        places.setdefault(query, []).append(place)
    return dict(places)
