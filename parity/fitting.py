"""Teaches a tiny random model the order of the pairs that verification asks for.

Only the parameters nearest the head are trained, and only on the card's own prompt. So a right
configuration passes verification, and a wrong one meets random weights again. The numbers stay near 0: far
from it a sigmoid hides what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from parity.models.base import SEED, Reference
from parity.pairs import Request

_STEPS = 400
_RATE = 0.004


class Case(Protocol):
    """What verification knows: a query, a relevant and an irrelevant document."""

    @property
    def query(self) -> str: ...
    @property
    def relevant(self) -> str: ...
    @property
    def irrelevant(self) -> str: ...


def fit(
    reference: Reference, cases: Sequence[Case], near: Sequence[Request], margin: float, middle: float
) -> None:
    """Train until every relevant document scores higher by a margin, and save.

    Args:
        reference: The model.
        cases: What it is to learn.
        near: Requests of which no number may lie farther from 0 than three times `middle`.
        margin: Between the numbers of a case's two documents, before any sigmoid.
        middle: How far from 0 those numbers may lie on average.

    Raises:
        RuntimeError: it does not succeed.
    """
    torch.manual_seed(SEED)
    parameters = list(dict.fromkeys(reference.trained()))
    for parameter in reference.model.parameters():
        parameter.requires_grad_(requires_grad=False)
    for parameter in parameters:
        parameter.requires_grad_(requires_grad=True)
    optimiser = torch.optim.Adam(parameters, lr=_RATE)
    for _ in range(_STEPS):
        optimiser.zero_grad()
        worst = torch.inf
        total = farthest = 0.0
        for case in cases:
            # In the order that verification asks in: a listwise model reads them together.
            irrelevant, relevant = reference.raw(case.query, [case.irrelevant, case.relevant])
            gap, centre = relevant - irrelevant, (relevant + irrelevant) / 2
            worst = min(worst, float(gap.detach()))
            total += float(centre.detach())
            (torch.relu(1.5 * margin - gap) + torch.relu(centre.abs() - middle)).backward()
        for request in near:
            numbers = reference.raw(request.query, request.documents).abs()
            farthest = max(farthest, float(numbers.detach().max()))
            torch.relu(numbers - 2 * middle).sum().backward()
        if worst > margin and abs(total) <= middle * len(cases) and farthest <= 3 * middle:
            reference.save()
            return
        optimiser.step()
    figures = f"worst pair {worst:.3g}, average {total / len(cases):.3g}, farthest {farthest:.3g}"
    raise RuntimeError(f"{reference.directory.name}: not fitted, {figures}")
