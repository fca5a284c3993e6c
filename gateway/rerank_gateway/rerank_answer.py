"""What a replica answered: a ranking, in the order that is decided here (by score, ties by index), or a
refusal. Pure. How clients read it is for `dialects`.
"""

import math
import re
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import orjson

from rerank_gateway import errors
from rerank_gateway.backend import BackendAnswer
from rerank_gateway.errors import ApiError
from rerank_gateway.rerank_request import RerankRequest

MAX_TOLD: Final = 100  # so many documents that were cut does a replica name
_MAX_REASON_LENGTH: Final = 1000
# Whatever could tell where a model runs: URLs, IPv4 and IPv6 addresses with or without a port.
_ADDRESS: Final = re.compile(
    r"\b[a-z][a-z0-9+.-]*://\S+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\[?\b(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}\b\]?(?::\d+)?",
    re.IGNORECASE,
)
_SCORE: Final = itemgetter(1)
_REPORT: Final = re.compile(rb"(\d{1,9});((?:\d{1,9}(?:,\d{1,9})*)?)(;query)?")
_TRACE: Final = ("Traceback (most recent call last)", 'File "/')


class BadAnswerError(ValueError):
    """A replica answered 200 with something that is no ranking."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """What was too long for the model and cut: `count` documents, the first of them by index."""

    count: int
    documents: tuple[int, ...]
    query: bool

    def as_json(self) -> dict[str, Any]:
        query = {"query": True} if self.query else {}
        return {"documents": self.documents, "count": self.count, **query}


@dataclass(frozen=True, slots=True)
class Ranking:
    """`scores` holds (index, score) from best to worst. `tokens`: what the replica says it read, and of these
    `query_tokens` for the query by itself, where that was read once and not with each document. `plan`: what
    the replica says it serves. `cached`: so many scores were known before.
    """

    scores: list[tuple[int, float]]
    tokens: int
    truncated: Truncated | None = None
    query_tokens: int = 0
    plan: bytes = b""
    cached: int = 0


def parse(backend_answer: BackendAnswer, request: RerankRequest) -> Ranking:
    """Read a replica's answer to `request`.

    Raises:
        BadAnswerError: an index out of range or repeated, a score that is no finite number, the wrong
            number of results, or a report of what was cut that cannot be read.
    """
    count = len(request.documents)
    expected = min(request.top_n or count, count)
    try:
        answer = orjson.loads(backend_answer.body)
        scores = [(result["index"], result["relevance_score"]) for result in answer["results"]]
        tokens = answer["usage"]["prompt_tokens"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadAnswerError(f"not a ranking: {type(error).__name__}") from None
    if type(tokens) is not int:
        raise BadAnswerError("usage.prompt_tokens is no integer")
    for index, score in scores:
        if type(index) is not int or not 0 <= index < count:
            raise BadAnswerError("an index that is not in the request")
        if type(score) not in (float, int) or not math.isfinite(score):
            raise BadAnswerError("a score that is not a finite number")
    if len(scores) != expected or len({index for index, _ in scores}) != expected:
        raise BadAnswerError(f"{len(scores)} results instead of {expected}")
    sort(scores)
    return Ranking(
        scores,
        tokens,
        truncated=_truncated(backend_answer.truncated, count),
        query_tokens=_query_tokens(backend_answer, tokens),
        plan=backend_answer.plan,
    )


def _truncated(report: bytes, count: int) -> Truncated | None:
    if not report:
        return None
    found = _REPORT.fullmatch(report)
    if found is None:
        raise BadAnswerError("a report of what was cut that cannot be read")
    documents = tuple(map(int, found[2].split(b","))) if found[2] else ()
    if int(found[1]) > count or any(index >= count for index in documents):
        raise BadAnswerError("a report of cut documents that are not in the request")
    return Truncated(int(found[1]), documents, query=found[3] is not None)


def _query_tokens(answer: BackendAnswer, tokens: int) -> int:
    text = answer.query_tokens
    if not text:
        return 0
    if not text.isdigit() or len(text) > 9 or int(text) > tokens:
        raise BadAnswerError("a number of the query's tokens that cannot be")
    return int(text)


def refusal(status: int, body: bytes) -> ApiError:
    """What to tell the client when a replica refused the request.

    A 400, 413 or 422 is about the client's own text (most often a document that is too long for the
    model) and passes with its reason. Everything else is ours to answer for, without details. So is the
    400 that vLLM sends when a score is NaN and JSON cannot hold it.
    """
    reason, param = _reason(body)
    if status in (400, 413, 422) and reason and not reason.startswith("Out of range float values"):
        return errors.invalid(reason, param=param, status=status, code="refused_by_model")
    if status == 503:
        return errors.unavailable("The model is overloaded.", code="model_overloaded", retry_after=1)
    return errors.backend_failed("The model failed to answer this request.")


def _reason(body: bytes) -> tuple[str, str | None]:
    try:
        error = orjson.loads(body)["error"]
        reason, param = error["message"], error.get("param")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return "", None
    if not isinstance(reason, str) or any(sign in reason for sign in _TRACE):
        return "", None
    clean = _ADDRESS.sub("(address)", reason)[:_MAX_REASON_LENGTH]
    return clean, param if isinstance(param, str) and len(param) <= 100 else None


def sort(scores: list[tuple[int, float]]) -> None:
    """Put (index, score) from best to worst, ties by index. Twice over, for no key is made in Python then."""
    scores.sort()
    scores.sort(key=_SCORE, reverse=True)  # stable, in reverse too
