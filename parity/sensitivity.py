"""Whether a reference would show an error of the model: how far its scores lie from where they cannot move,
and from each other. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

BOUND = 1e-3
"""How far a score may be off."""
# Scores closer together than twice what a family may be off have no order to keep.
_TIES = 2.0
# A score is sensitive where it moves by at least this when the number behind it moves by 1: the slope of the
# sigmoid; of a cosine the square of the sine. A logit is that number.
_SLOPE = 1e-2
_SLOPES: dict[str, Callable[[float], float]] = {
    "[0,1]": lambda score: score * (1 - score),
    "[-1,1]": lambda score: 1 - score * score,
    "logits": lambda _: 1.0,
}
_ENOUGH = 2 / 3


@dataclass(frozen=True)
class Sensitivity:
    """Of a reference.

    Args:
        scores: By kind of request, the sensitive scores, and all of them.
        order: Pairs of documents of one request whose order is told, and all of them.
    """

    scores: dict[str, tuple[int, int]]
    order: tuple[int, int]

    @property
    def total(self) -> tuple[int, int]:
        """The sensitive scores of every kind, and all of them."""
        some, every = zip(*self.scores.values(), strict=True)
        return sum(some), sum(every)

    def failures(self) -> list[str]:
        """Where so much is insensitive that the comparison proves little; empty where nothing is."""
        found = [
            f"{some} of {every} {kind} scores of the card are sensitive"
            for kind, (some, every) in self.scores.items()
            # There it is the one document that is cut which counts.
            if some < (every if kind == "overlong" else _ENOUGH * every)
        ]
        some, every = self.order
        if some < _ENOUGH * every:
            found.append(f"{some} of {every} pairs of documents have an order by the card")
        return found


def of(reference: Sequence[dict[str, Any]], scale: str) -> Sensitivity:
    """How much a reference shows.

    Args:
        reference: `reference.json` of `parity.build`.
        scale: Of its scores, as the plan names it.
    """
    scores: dict[str, tuple[int, int]] = {}
    for request in reference:
        some, every = scores.get(request["kind"], (0, 0))
        steep = sum(_SLOPES[scale](score) >= _SLOPE for score in request["scores"])
        scores[request["kind"]] = (some + steep, every + len(request["scores"]))
    told = sum(len(list(told_apart(request["scores"]))) for request in reference)
    every = sum(len(request["scores"]) * (len(request["scores"]) - 1) // 2 for request in reference)
    return Sensitivity(scores, (told, every))


def told_apart(scores: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Pairs of documents, by their places in a request, that a reference puts in an order."""
    for first, second in combinations(range(len(scores)), 2):
        if abs(scores[first] - scores[second]) > _TIES * BOUND:
            yield first, second
