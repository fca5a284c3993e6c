"""How much of a request a replica is sent at once. Pure.

Who comes behind a part waits for all of it, so a part is the work of one engine step. But each part is a call
to a replica: a replica that does several steps in a time that nobody notices is sent as many at once.
"""

from typing import Final, NamedTuple

# More fill no step better.
STEP_DOCUMENTS: Final = 32
# A replica has two parts at a time, so a newcomer may wait twice as long.
_SECONDS: Final = 0.01
_MOST_STEPS: Final = 8


class Most(NamedTuple):
    """What a part may hold, but for a single text, which may be longer."""

    tokens: int
    documents: int = STEP_DOCUMENTS


def steps_at_once(rate: float | None, step_tokens: int) -> int:
    """Engine steps that a part may be worth.

    Args:
        rate: tokens a second of one replica, None where it was not seen yet.
        step_tokens: of an engine step.
    """
    return 1 if rate is None else max(1, min(_MOST_STEPS, int(rate * _SECONDS / step_tokens)))


def of(tokens: int, replicas: int, steps: int, step_tokens: int) -> Most:
    """The parts of a request of so many tokens: no larger than is needed to have one for each replica.

    Args:
        tokens: of the request.
        replicas: of the model, that are ready.
        steps: that a part may be worth.
        step_tokens: of an engine step.
    """
    steps = min(steps, max(1, -(-tokens // (step_tokens * max(1, replicas)))))
    return Most(steps * step_tokens, steps * STEP_DOCUMENTS)
