"""The intake: what a request for scores becomes before vLLM sees it.

pid 1 writes `IntakeSettings` to a file, and the guard in vLLM's server process reads it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rerank_runtime.options import Method, OnOverflow
from rerank_runtime.serve_plan import ServePlan

# Names the file with IntakeSettings, for the guard.
SETTINGS = "RERANK_INTAKE"


@dataclass(frozen=True)
class IntakeSettings:
    """What the intake must know of a model. Lengths are in tokens, None where only the model's own counts.

    Args:
        directory: The model's directory, with tokenizer.json.
        method: CrossEncoder or Cosine.
        context_length: Longest prompt; vLLM's --max-model-len.
        template_path: The chat template that vLLM was given, or None.
        max_tokens_per_document: Longest document.
        max_tokens_per_query: Longest query.
        on_overflow: What happens to longer texts.
        pointwise: Whether each document is scored by itself.
        max_documents: Most documents of one request, or None.
    """

    directory: Path
    method: Method
    context_length: int
    template_path: Path | None = None
    max_tokens_per_document: int | None = None
    max_tokens_per_query: int | None = None
    on_overflow: OnOverflow = OnOverflow.TRUNCATE
    pointwise: bool = True
    max_documents: int | None = None

    @classmethod
    def of(cls, plan: ServePlan, directory: Path, template_path: Path | None) -> IntakeSettings:
        """The settings for a plan whose template, if it has one, lies at `template_path`."""
        return cls(
            directory=directory,
            method=plan.method,
            context_length=plan.context_length,
            template_path=template_path,
            max_tokens_per_document=plan.truncation.max_tokens_per_document,
            max_tokens_per_query=plan.truncation.max_tokens_per_query,
            on_overflow=plan.truncation.on_overflow,
            pointwise=plan.pointwise,
            max_documents=plan.max_documents,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> IntakeSettings:
        """Read what `to_json` wrote.

        Raises:
            TypeError, ValueError, KeyError: it is something else.
        """
        fields = json.loads(text)
        template = fields["template_path"]
        return cls(
            **fields
            | {
                "directory": Path(fields["directory"]),
                "method": Method(fields["method"]),
                "template_path": None if template is None else Path(template),
                "on_overflow": OnOverflow(fields["on_overflow"]),
            }
        )
