"""A figure and what it must not exceed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """`most` None: a figure that is only told."""

    what: str
    figure: float
    most: float | None = None
    unit: str = ""

    @property
    def held(self) -> bool:
        return self.most is None or self.figure <= self.most

    def __str__(self) -> str:
        limit = "" if self.most is None else f"  (at most {self.most:g}{'' if self.held else ': MISSED'})"
        return f"{self.what:<58} {self.figure:>10.4g} {self.unit:<3}{limit}"


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
