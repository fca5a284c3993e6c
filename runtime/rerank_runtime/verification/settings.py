"""What a ModelDeployment asks of verification (`spec.scoring.verification`), as the pod is told it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.verification.cases import Case

VARIABLE = "RERANK_VERIFICATION"


class Mode(StrEnum):
    """What follows from what verification finds."""

    REQUIRED = "Required"
    """Ready only while every check passes."""
    REPORT = "Report"
    """Checked and reported; ready either way."""
    OFF = "Off"
    """Not checked; ready once the engine answers."""


@dataclass(frozen=True)
class Settings:
    """The mode, and a user's own cases."""

    mode: Mode = Mode.REQUIRED
    cases: tuple[Case, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read `{"mode": …, "cases": [{"query", "relevant", "irrelevant"}]}`; both fields may be absent.

        Raises:
            Failure: `InvalidOptions` where it is anything else.
        """
        if not text:
            return cls()
        try:
            content: dict[str, Any] = json.loads(text)
            cases = content.get("cases") or []
            mode = Mode(content.get("mode") or Mode.REQUIRED)
            own = tuple(
                Case(*(_text(case, key) for key in ("query", "relevant", "irrelevant"))) for case in cases
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Failure(
                Reason.INVALID_OPTIONS, f"The settings of verification cannot be read: {error}."
            ) from error
        return cls(mode, own)


def _text(case: dict[str, Any], key: str) -> str:
    value = case[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} of a case is no text")
    return value
