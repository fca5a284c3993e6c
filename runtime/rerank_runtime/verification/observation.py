"""What was seen of a running engine, as values. Filled in by engine_api, judged by checks and ranking."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_runtime.verification.cases import Case


@dataclass(frozen=True)
class Expected:
    """Prompt tokens that a case's request must have, computed apart from the engine.

    Args:
        tokens: With the plan's template and the model's own tokenizer.
        without_instruction: The same without the plan's instruction; None where there is none.
    """

    tokens: int
    without_instruction: int | None = None


@dataclass(frozen=True)
class Answer:
    """What the engine answered to one case.

    Args:
        case: What was asked.
        relevant: Score of the relevant text; None where there was an error.
        irrelevant: Score of the other.
        prompt_tokens: As the engine counted them.
        expected: What they must be, or None where that is not known.
        truncated: Whether a text was cut on its way to the model.
        error: HTTP status and message, or what else was wrong with the answer.
    """

    case: Case
    relevant: float | None = None
    irrelevant: float | None = None
    prompt_tokens: int = 0
    expected: Expected | None = None
    truncated: bool = False
    error: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What besides answers tells how a model is served."""

    routes: frozenset[str]
    """Paths in /openapi.json."""
    context_length: int
    """max_model_len in /v1/models."""


@dataclass(frozen=True)
class Observation:
    """One round of questions."""

    answers: tuple[Answer, ...]
    template_sha256: str | None
    """Of the file that was handed to the engine; None where there is none."""
    surroundings: Surroundings | None = None
    """None in a quick round."""
