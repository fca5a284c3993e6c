"""A request cut into parts that replicas score by themselves, and the parts' scores put together again. Pure.

Sound for models that score each document by itself. Where documents are read together (listwise), a request
goes whole. What comes out equals what one replica would have answered: same scores, same order; texts that
stand in a request twice are scored once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rerank_gateway import errors, rerank_answer
from rerank_gateway.errors import ApiError
from rerank_gateway.part_size import Most
from rerank_gateway.rerank_answer import MAX_TOLD, Ranking, Truncated
from rerank_gateway.rerank_request import RerankRequest

_DOCUMENT: Final = re.compile(r"documents\[(\d{1,9})\]")


@dataclass(frozen=True, slots=True)
class Part:
    """A request for one replica. `places[i]`: where its document `i` stands in the client's request."""

    request: RerankRequest
    tokens: int
    places: Sequence[tuple[int, ...]]

    @property
    def documents(self) -> int:
        return len(self.request.documents)


def is_whole(documents: Sequence[str], tokens: int, most: Most) -> bool:
    """Whether a request of so many estimated tokens is one part and has no text twice."""
    count = len(documents)
    if count == 1:
        return True
    return count <= most.documents and tokens <= most.tokens and len(set(documents)) == count


def places(documents: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Each different text with the places where it stands, in the order of the first ones."""
    found: dict[str, tuple[int, ...]] = {}
    for place, text in enumerate(documents):
        known = found.get(text)
        found[text] = (place,) if known is None else (*known, place)
    return found


def parts(
    request: RerankRequest, costs: Sequence[int], wanted: Mapping[str, tuple[int, ...]], most: Most
) -> list[Part]:
    """Parts of about equal length, each within `most`.

    Args:
        request: the client's.
        costs: estimated tokens of each of its documents.
        wanted: what `places` found, or a part of it: the texts that are to be scored.
        most: of a part.
    """
    texts, where = list(wanted), list(wanted.values())
    sizes = [costs[stands[0]] for stands in where]
    least = max(-(-len(texts) // most.documents), -(-sum(sizes) // most.tokens), 1)
    length = -(-len(texts) // least)
    found: list[Part] = []
    start = tokens = 0

    def close(end: int) -> None:
        part = RerankRequest(request.query, texts[start:end], None, request.max_tokens_per_doc)
        found.append(Part(part, tokens, where[start:end]))

    for place, size in enumerate(sizes):
        if place > start and (place - start == length or tokens + size > most.tokens):
            close(place)
            start, tokens = place, 0
        tokens += size
    if texts:
        close(len(texts))
    return found


def merge(
    request: RerankRequest,
    answers: Sequence[tuple[Part, Ranking]],
    known: Sequence[tuple[tuple[int, ...], float]] = (),
) -> Ranking:
    """The ranking of the client's request.

    Args:
        request: the client's.
        answers: its parts and their rankings.
        known: scores that needed no asking, with the places that they are for.
    """
    scores = [(place, score) for where, score in known for place in where]
    cached = len(scores)
    cut: list[int] = []
    query_cut = False
    for part, ranking in answers:
        scores += [(place, score) for index, score in ranking.scores for place in part.places[index]]
        if ranking.truncated is not None:
            cut += [place for index in ranking.truncated.documents for place in part.places[index]]
            query_cut = query_cut or ranking.truncated.query
    rerank_answer.sort(scores)
    cut.sort()
    return Ranking(
        scores=scores[: request.top_n or None],
        tokens=_tokens([ranking for _, ranking in answers]),
        truncated=Truncated(len(cut), tuple(cut[:MAX_TOLD]), query_cut) if cut or query_cut else None,
        cached=cached,
    )


def _tokens(rankings: Sequence[Ranking]) -> int:
    """What was read: where each answer counts the query once (embeddings), so does the sum of them."""
    repeated = sum(ranking.query_tokens for ranking in rankings[1:])
    return sum(ranking.tokens for ranking in rankings) - repeated


def original(refusal: ApiError, part: Part) -> ApiError:
    """A replica's refusal of a part, naming the document at fault by its place in the client's request."""
    found = _DOCUMENT.fullmatch(refusal.param or "")
    if found is None or int(found[1]) >= len(part.places):
        return refusal
    name = f"documents[{part.places[int(found[1])][0]}]"
    message = refusal.message.replace(found[0], name)
    return errors.invalid(message, param=name, status=refusal.status, code=refusal.code)
