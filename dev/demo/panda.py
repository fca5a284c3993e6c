"""The question of the demo, the HTTP call, and the judgement of its answer."""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

QUERY: Final = "What is a panda?"
PANDA: Final = (
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, "
    "is a bear species endemic to China."
)
DOCUMENTS: Final = ("hi", "it is a bear", PANDA)
REQUEST_SECONDS: Final = 60.0


class AnswerError(Exception):
    """The gateway refused, could not be reached, or answered something else than a ranking."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        """Keep the HTTP status; 0 where there was no answer."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Ranked:
    """One line of the table: `index` counts from 0 in the order of the request."""

    score: float
    document: str
    index: int


def request_body(model: str) -> dict[str, Any]:
    """The body of the request."""
    return {"model": model, "query": QUERY, "documents": list(DOCUMENTS), "top_n": len(DOCUMENTS)}


def ask(base_url: str, key: str, model: str) -> list[Ranked]:
    """Send the request to the gateway at `base_url` and return the ranking, best first.

    Raises:
        AnswerError: any other outcome, with what the gateway said.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps(request_body(model)).encode()
    request = urllib.request.Request(f"{base_url}/v1/rerank", data=body, headers=headers)
    # No proxy of the environment stands between us and a loopback address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=REQUEST_SECONDS) as response:
            return ranking(json.load(response))
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode(errors="replace")
        raise AnswerError(f"the gateway answered {error.code}: {said}", status=error.code) from error
    except (OSError, ValueError) as error:
        raise AnswerError(f"no answer from the gateway: {error}") from error


def ranking(answer: Mapping[str, Any]) -> list[Ranked]:
    """Read the answer of `POST /v1/rerank`. Documents are ours by index: what came back is not trusted.

    Raises:
        AnswerError: it does not rank each of the documents once, or not from the best to the worst.
    """
    try:
        ranked = [
            Ranked(float(result["relevance_score"]), DOCUMENTS[result["index"]], result["index"])
            for result in answer["results"]
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise AnswerError(f"this is no ranking: {json.dumps(answer)[:500]}") from error
    if sorted(entry.index for entry in ranked) != list(range(len(DOCUMENTS))):
        raise AnswerError("the answer does not rank each document once")
    scores = [entry.score for entry in ranked]
    if not all(map(math.isfinite, scores)) or scores != sorted(scores, reverse=True):
        raise AnswerError(f"the answer is not sorted by finite scores: {scores}")
    return ranked


def panda_first(ranked: list[Ranked]) -> bool:
    """Whether the panda text won, and not by a draw."""
    return ranked[0].document == PANDA and ranked[0].score > ranked[1].score
