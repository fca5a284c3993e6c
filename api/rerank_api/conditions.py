"""Standard conditions (KEP-1623) and their one merge rule."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from rerank_api.resource import StatusModel

ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(StatusModel):
    """One condition as it stands in a status."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: datetime


class Verdict(StatusModel):
    """A condition as a pure check decides it: without the time, which is not the check's business."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


def merge(
    old: Iterable[Condition], verdicts: Sequence[Verdict], *, generation: int, now: datetime
) -> list[Condition]:
    """The conditions to write: `verdicts` in their order, stamped.

    `lastTransitionTime` moves only when `status` does (API conventions, "Typical status properties").
    A condition in `old` without a verdict is dropped: the verdicts are the whole story.
    """
    before = {condition.type: condition for condition in old}
    merged = []
    for verdict in verdicts:
        previous = before.get(verdict.type)
        unchanged = previous is not None and previous.status == verdict.status
        merged.append(
            Condition(
                **verdict.model_dump(),
                observed_generation=generation,
                last_transition_time=previous.last_transition_time if previous and unchanged else now,
            )
        )
    return merged
