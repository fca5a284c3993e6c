"""How much of a request a replica is sent at once. Pure.

Who comes behind a part waits for all of it, so a part is the work of one engine step. But each part is a call
to a replica: replicas that do several steps in a time that nobody notices are sent as many at once.
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


class PartSize:
    """Of one model: `steps` of the engine that a part may be worth, so far.

    Twice as many after a part that came back soon, and one again after anything that did not: what was fast
    a moment ago is no promise.

    Args:
        step_tokens: of an engine step.
    """

    def __init__(self, step_tokens: int) -> None:
        self.steps = 1
        self._step_tokens = step_tokens

    @property
    def tokens(self) -> int:
        """Of the largest part."""
        return self.steps * self._step_tokens

    def answered(self, tokens: int, seconds: float) -> None:
        """A replica has read so many tokens, and whatever was before them, in so many seconds."""
        if seconds > 2 * _SECONDS:
            self.steps = 1
        elif seconds <= _SECONDS and 2 * tokens > self.tokens:
            self.steps = min(_MOST_STEPS, 2 * self.steps)

    def of(self, tokens: int, replicas: int) -> Most:
        """The parts of a request of so many tokens: no larger than leaves one for each of the replicas."""
        steps = min(self.steps, max(1, -(-tokens // (self._step_tokens * max(1, replicas)))))
        return Most(steps * self._step_tokens, steps * STEP_DOCUMENTS)
