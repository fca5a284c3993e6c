"""The intake: what a request for scores becomes before vLLM sees it.

pid 1 writes `IntakeSettings` to a file; the guard in vLLM's server process makes an `Intake` of it and sends
every request through. The body is rebuilt from a few fields: vLLM takes others that change scores
(use_activation, truncate_prompt_tokens, chat_template_kwargs…) and would take them from any caller.
Verification's requests pass here too, so that what is verified is what is served.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from rerank_runtime import chat_template, prompt_pieces
from rerank_runtime.control_tokens import ControlTokens
from rerank_runtime.families import jina_v3
from rerank_runtime.listwise import Listwise
from rerank_runtime.options import Method, OnOverflow
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.text_tokenizer import TextTokenizer
from rerank_runtime.truncation import (
    Embeddings,
    Limits,
    Pairs,
    Prompts,
    Texts,
    TooLongError,
    Truncation,
    document_param,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Names the file with IntakeSettings, for the guard.
SETTINGS = "RERANK_INTAKE"


@dataclass(frozen=True)
class IntakeSettings:
    """What the intake must know of a model. Lengths are in tokens, None where only the model's own counts.

    Args:
        directory: Directory of tokenizer.json, the engine's.
        method: CrossEncoder or Cosine.
        context_length: Longest prompt; vLLM's --max-model-len.
        template_path: The chat template that vLLM was given, or None.
        max_tokens_per_document: Longest document.
        max_tokens_per_query: Longest query.
        on_overflow: What happens to longer texts.
        pointwise: Whether each document is scored by itself.
        max_documents: Most documents of one request, or None.
        identity: What is served, as `identity.digest` tells it.
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
    identity: str = ""

    @classmethod
    def of(
        cls, plan: ServePlan, directory: Path, template_path: Path | None, identity: str = ""
    ) -> IntakeSettings:
        """The settings for a plan whose template, if it has one, lies at `template_path`.

        Args:
            plan: The plan.
            directory: Of the engine's tokenizer.
            template_path: The template's file.
            identity: Of what is served.
        """
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
            identity=identity,
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


@dataclass(frozen=True)
class Report:
    """What was cut: documents by their place in the request."""

    documents: tuple[int, ...] = ()
    query: bool = False

    def header(self) -> str:
        """As the response's header tells it: `COUNT;INDEX,INDEX…`, then `;query` if that was cut too.

        At most 100 places are named; empty where nothing was cut.
        """
        if not self.documents and not self.query:
            return ""
        places = ",".join(map(str, self.documents[:_NAMED_PLACES]))
        return f"{len(self.documents)};{places}{';query' if self.query else ''}"


@dataclass(frozen=True)
class Admitted:
    """A body for vLLM, and what was cut to make it.

    `query_tokens`: of the query by itself, where vLLM reads it once and not with each document.
    """

    body: bytes
    report: Report = Report()
    query_tokens: int | None = None


@dataclass(frozen=True)
class Refused:
    """A request that the caller must change: status 400."""

    message: str
    param: str | None = None


Outcome = Admitted | Refused
Finish = Callable[[], Outcome]

_NAMED_PLACES = 100


class _WrongError(Exception):
    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.refused = Refused(message, param)


@dataclass(frozen=True)
class _Request:
    model: str | None
    top_n: int | None
    texts: Texts


class Intake:
    """The intake of one model. Safe for use by several threads.

    Raises:
        OSError, ValueError: the model's tokenizer or its template cannot be read.
    """

    def __init__(self, settings: IntakeSettings) -> None:
        self._settings = settings
        path = settings.directory / "tokenizer.json"
        definition = _json(path)
        tokenizer = _tokenizer(path)
        config_path = settings.directory / "tokenizer_config.json"
        config = _json(config_path) if config_path.is_file() else {}
        template = settings.template_path
        text = None if template is None else template.read_text(encoding="utf-8")
        self._seams = prompt_pieces.wanted(text)
        self._control = ControlTokens.of(tokenizer, definition, config, text)
        self._tokenizer = TextTokenizer(tokenizer)
        self._truncation = _truncation(settings, self._tokenizer, text)

    def begin(self, body: bytes) -> Outcome | Finish:
        """Take a request in. Where that needs tokenising, the rest of the work is returned instead."""
        try:
            request = self._read(body)
        except _WrongError as error:
            return error.refused
        if self._truncation.fits(request.texts):
            return Admitted(self._body(request), query_tokens=self._query_tokens(request.texts.query))
        return lambda: self._fit(request)

    def whole(self, body: bytes) -> Outcome:
        """Take a request in, tokenising included."""
        outcome = self.begin(body)
        return outcome() if callable(outcome) else outcome

    def _fit(self, request: _Request) -> Outcome:
        try:
            fitted = self._truncation.fit(request.texts)
        except TooLongError as error:
            return Refused(error.message, error.param)
        texts = replace(request.texts, query=fitted.query, documents=fitted.documents)
        report = Report(fitted.cut_documents, fitted.cut_query)
        body = self._body(replace(request, texts=texts))
        return Admitted(body, report, self._query_tokens(fitted.query))

    def _query_tokens(self, query: str) -> int | None:
        if self._settings.method is not Method.COSINE:
            return None
        # vLLM cuts what is longer than the model when it is told to (_body).
        return min(self._tokenizer.prompt_counts([query])[0], self._settings.context_length)

    def _read(self, body: bytes) -> _Request:
        try:
            fields = from_json(body, cache_strings=False)
        except ValueError as error:
            raise _WrongError(f"The body is not valid JSON: {error}.") from error
        if not isinstance(fields, dict):
            raise _WrongError("The body must be a JSON object.")
        model = fields.get("model")
        if not (model is None or isinstance(model, str)):
            raise _WrongError("model must be a string.", "model")
        query = fields.get("query")
        if not isinstance(query, str):
            raise _WrongError("query must be a string.", "query")
        inert = self._inert
        texts = Texts(
            inert(query),
            [inert(document) for document in self._documents(fields.get("documents"))],
            _count(fields, "max_tokens_per_doc") or None,
            _count(fields, "max_tokens_per_query") or None,
        )
        return _Request(model, _count(fields, "top_n"), texts)

    def _inert(self, text: str) -> str:
        # A seam of the prompt would part words of the text; elsewhere it is a character like any other.
        whole = text.replace(prompt_pieces.SEAM, "") if self._seams else text
        return self._control.inert(whole)

    def _documents(self, value: Any) -> list[str]:
        documents = [value] if isinstance(value, str) else value
        if not isinstance(documents, list) or not documents:
            raise _WrongError("documents must be a list of strings, one at least.", "documents")
        if set(map(type, documents)) != {str}:
            param = document_param(next(i for i, text in enumerate(documents) if type(text) is not str))
            raise _WrongError(f"{param} must be a string.", param)
        most = self._settings.max_documents
        if most is not None and len(documents) > most:
            raise _WrongError(
                f"documents holds {len(documents)} texts. This model reads all documents of a request "
                f"together and takes {most} at most, and scores of separate requests do not compare. Rank "
                "fewer documents, for example the best of another ranking.",
                "documents",
            )
        return documents

    def _body(self, request: _Request) -> bytes:
        fields: dict[str, Any] = {"query": request.texts.query, "documents": request.texts.documents}
        if request.model is not None:
            fields["model"] = request.model
        if request.top_n:
            fields["top_n"] = request.top_n
        if self._truncation.by_engine and self._settings.on_overflow is OnOverflow.TRUNCATE:
            # To the model's length. Right only where no template is: there it would cut off the end.
            fields["truncate_prompt_tokens"] = -1
        return to_json(fields)


def _count(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise _WrongError(f"{name} must be an integer, 0 or more.", name)
    return value


def _truncation(settings: IntakeSettings, tokenizer: TextTokenizer, template: str | None) -> Truncation:
    limits = Limits(
        settings.context_length,
        settings.max_tokens_per_document,
        settings.max_tokens_per_query,
        reject=settings.on_overflow is OnOverflow.REJECT,
    )
    if not settings.pointwise:
        return Listwise(tokenizer, limits, jina_v3.prompt)
    if template is not None:
        return Prompts(tokenizer, limits, lambda query, text: chat_template.render(template, query, text))
    if settings.method is Method.COSINE:
        return Embeddings(tokenizer, limits)
    return Pairs(tokenizer, limits)


def _tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer  # noqa: PLC0415 - pid 1 imports this module for its settings alone

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more precise
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a JSON object")  # noqa: TRY004 - the file is at fault
    return content
