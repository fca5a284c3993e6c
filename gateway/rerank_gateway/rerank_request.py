"""From the bytes of a `/v1/rerank` body to the request that the gateway understands. Pure.

The body is parsed whole and later rebuilt (`backend_body`), so what is checked here is exactly what a model
sees: a repeated JSON key, an unknown field or a null cannot slip past. Real clients send nulls for what
they leave out, `{"text": …}` documents and numbers as strings; vLLM refuses those, so they are normalised.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from rerank_gateway import errors
from rerank_gateway.records import ModelRecord

# Each document is one sequence of the engine: the bound is on work, which the body's size does not bound.
MAX_DOCUMENTS: Final = 10_000
_CHARACTERS_PER_TOKEN: Final = 4  # of English; an estimate for balancing only
_MAX_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A valid request. `top_n` None: all documents; `max_tokens_per_doc` None: cut only as the model is
    told to.
    """

    model: str
    query: str
    documents: list[str]
    top_n: int | None
    max_tokens_per_doc: int | None
    return_documents: bool

    @property
    def estimated_tokens(self) -> int:
        """About how much work this is: the model reads the query once with each document."""
        characters = len(self.query) * len(self.documents) + sum(map(len, self.documents))
        return characters // _CHARACTERS_PER_TOKEN + len(self.documents)


def parse(body: bytes) -> RerankRequest:
    """Read and check a body.

    Raises:
        ApiError: 400 that names the field at fault and says what it should be.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise errors.invalid(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise errors.invalid('The body must be a JSON object with "model", "query" and "documents".')
    return RerankRequest(
        model=_text(fields, "model", "GET /v1/models lists the models that this key may call."),
        query=_text(fields, "query", "It is what the documents are compared with."),
        documents=_documents(fields.get("documents")),
        top_n=_count(fields, "top_n"),
        max_tokens_per_doc=_count(fields, "max_tokens_per_doc"),
        return_documents=_flag(fields, "return_documents", absent=True),
    )


def backend_body(request: RerankRequest, model: ModelRecord) -> bytes:
    """The body for a replica of `model`: an allow-list of fields, none of them null."""
    fields: dict[str, Any] = {
        "model": model.id.name,
        "query": request.query,
        "documents": request.documents,
    }
    if request.top_n is not None:
        fields["top_n"] = min(request.top_n, len(request.documents))
    if request.max_tokens_per_doc is not None:
        # One more limit beside the model's own. The runtime takes any: Cohere's clients send 4096 to every
        # model.
        fields["max_tokens_per_doc"] = request.max_tokens_per_doc
    return orjson.dumps(fields)


def _text(fields: dict[str, Any], name: str, hint: str) -> str:
    value = fields.get(name)
    if value is None:
        raise errors.invalid(f'"{name}" is missing. {hint}', param=name)
    if not (isinstance(value, str) and value):
        raise errors.invalid(f'"{name}" must be a non-empty string, not {_kind(value)}.', param=name)
    return value


def _documents(value: Any) -> list[str]:
    if value is None:
        raise errors.invalid(
            '"documents" is missing. Send a list of strings, the texts to rank.', param="documents"
        )
    if not isinstance(value, list):
        raise errors.invalid(
            f'"documents" must be a list of strings, not {_kind(value)}.',
            param="documents",
        )
    if not value:
        raise errors.invalid('"documents" is empty. Send at least one text to rank.', param="documents")
    if len(value) > MAX_DOCUMENTS:
        raise errors.invalid(
            f'"documents" holds {len(value)} entries, more than {MAX_DOCUMENTS}. '
            "Send them in several requests.",
            param="documents",
        )
    if set(map(type, value)) == {str}:
        return value
    return [_document(entry, index) for index, entry in enumerate(value)]


def _document(entry: Any, index: int) -> str:
    text = entry.get("text") if isinstance(entry, dict) else entry
    if isinstance(text, str):
        return text
    param = f"documents[{index}]"
    raise errors.invalid(
        f'"{param}" must be a string, or an object with a string "text", not {_kind(entry)}.', param=param
    )


def _count(fields: dict[str, Any], name: str) -> int | None:
    """A positive integer; null and 0 mean "not set" to vLLM's own clients."""
    value = fields.get(name)
    if value is None:
        return None
    number: int | None = None
    if isinstance(value, str):
        stripped = value.strip()
        if stripped.isascii() and stripped.isdigit() and len(stripped) <= _MAX_DIGITS:
            number = int(stripped)
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or number < 0:
        raise errors.invalid(f'"{name}" must be a positive integer, not {_kind(value)}.', param=name)
    return number or None


def _flag(fields: dict[str, Any], name: str, *, absent: bool) -> bool:
    value = fields.get(name)
    if value is None:
        return absent
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise errors.invalid(f'"{name}" must be true or false, not {_kind(value)}.', param=name)


def _kind(value: Any) -> str:
    """How to name a wrong value without quoting what may be long or private."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return f"the number {errors.shown(str(value))}"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else "null"
