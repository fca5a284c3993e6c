"""What a family's answers through the gateway look like beside its reference. Pure but for the asking."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity import sensitivity
from parity.sensitivity import Sensitivity
from parity.serving import Served


@dataclass(frozen=True)
class Row:
    """One family's result.

    Args:
        family: Its name.
        pairs: How many were compared.
        difference: Largest difference of scores, by kind of request.
        tau: Kendall's rank agreement of all requests, -1 to 1, pairs of documents that tie left out; NaN
            where all do.
        sensitivity: Of the reference.
        tokens: Requests for which the engine was given the card's prompts, token for token, and how many
            requests there were.
        verified: What verification said: empty or the reason of its failure.
        plan: What was decided.
        errors: Requests that were not answered with scores.
    """

    family: str
    pairs: int
    difference: dict[str, float]
    tau: float
    sensitivity: Sensitivity
    tokens: tuple[int, int]
    verified: str
    plan: dict[str, Any]
    errors: tuple[str, ...] = field(default=())

    @property
    def worst(self) -> float:
        return max(self.difference.values(), default=math.inf)


def compare(family: str, served: Served, reference: Sequence[dict[str, Any]]) -> Row:
    """Send every request of a reference through the gateway.

    Args:
        family: Its name.
        served: The running model.
        reference: `reference.json` of `parity.build`.
    """
    difference: dict[str, float] = {}
    same = 0
    errors: list[str] = []
    agreement: list[int] = []
    for expected in reference:
        before = len(served.prompts())
        answer = served.rerank(expected["query"], expected["documents"])
        if answer.status != 200:
            errors.append(f"{expected['kind']}: {answer.status} {str(answer.body)[:300]}")
            continue
        scores = [0.0] * len(expected["documents"])
        for result in answer.body["results"]:
            scores[result["index"]] = float(result["relevance_score"])
        off = max(abs(a - b) for a, b in zip(scores, expected["scores"], strict=True))
        difference[expected["kind"]] = max(off, difference.get(expected["kind"], 0.0))
        agreement += _agreement(scores, expected["scores"])
        same += same_prompts(
            served.prompts()[before:], expected["prompts"], answer.body["usage"]["prompt_tokens"]
        )
    verification = served.status["verification"]
    return Row(
        family=family,
        pairs=sum(len(expected["documents"]) for expected in reference),
        difference=difference,
        tau=sum(agreement) / len(agreement) if agreement else math.nan,
        sensitivity=sensitivity.of(reference, served.plan["score_range"]),
        tokens=(same, len(reference)),
        verified="" if verification["verified"] else str(verification["reason"]),
        plan=served.plan,
        errors=tuple(errors),
    )


def same_prompts(given: Iterable[list[int]], expected: Iterable[list[int]], counted: int) -> bool:
    """Whether a request's prompts are the expected ones, token for token.

    Args:
        given: What the engine was given from the request to its answer. The pod's own verification may have
            asked in between, so there may be more.
        expected: Of each document.
        counted: Tokens of this request alone, by its answer: so it had no prompts besides.
    """
    wanted = Counter(map(tuple, expected))
    return wanted <= Counter(map(tuple, given)) and counted == sum(map(len, wanted.elements()))


def _agreement(scores: Sequence[float], expected: Sequence[float]) -> list[int]:
    """For each two documents that the reference tells apart: 1 in its order, else -1."""
    return [
        1 if (scores[a] - scores[b]) * (expected[a] - expected[b]) > 0 else -1
        for a, b in sensitivity.told_apart(expected)
    ]
