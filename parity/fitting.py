"""Teaches a tiny random model the order of the pairs that verification asks for.

Only the parameters nearest the head are trained, and only on the card's own prompt. So a right
configuration passes verification, and a wrong one meets random weights again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from parity.models.base import SEED, Reference

_STEPS = 400
_RATE = 0.01


class Case(Protocol):
    """What verification knows: a query, a relevant and an irrelevant document."""

    @property
    def query(self) -> str: ...
    @property
    def relevant(self) -> str: ...
    @property
    def irrelevant(self) -> str: ...


def fit(reference: Reference, cases: Sequence[Case], margin: float) -> None:
    """Train until every relevant document scores higher by a margin, and save.

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
        for case in cases:
            # In the order that verification asks in: a listwise model reads them together.
            irrelevant, relevant = reference.raw(case.query, [case.irrelevant, case.relevant])
            gap = relevant - irrelevant
            worst = min(worst, float(gap.detach()))
            torch.relu(1.5 * margin - gap).backward()
        if worst > margin:
            reference.save()
            return
        optimiser.step()
    raise RuntimeError(f"{reference.directory.name}: the known pairs are not in order, worst {worst:.3g}")
