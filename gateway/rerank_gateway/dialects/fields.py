"""Reading the fields of a request's body, as tolerant as real clients need.

They send nulls for what they leave out, `{"text": …}` documents and numbers as strings; vLLM refuses those,
so they are normalised. What is wrong is refused by name.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from rerank_gateway import errors
from rerank_gateway.dialects.call import Fields, Route

# Each document is one sequence of the engine: the bound is on work, which the body's size does not bound.
MAX_DOCUMENTS: Final = 10_000
_MAX_DIGITS: Final = 18
_MAX_COUNT: Final = 10**_MAX_DIGITS  # what JSON can carry on to a replica is a little more


def load(body: bytes) -> Fields:
    """The body's fields; of a repeated one the last.

    Raises:
        ApiError: 400, it is no JSON object.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise errors.invalid(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise errors.invalid('The body must be a JSON object with "model", "query" and "documents".')
    return fields


def model(fields: Fields, route: Route) -> str:
    """The path's model, which wins, or the body's."""
    return route.model or text(fields, "model", "GET /v1/models lists the models that this key may call.")


def query(fields: Fields) -> str:
    return text(fields, "query", "It is what the documents are compared with.")


def text(fields: Fields, name: str, hint: str) -> str:
    """A string that is not empty."""
    value = fields.get(name)
    if value is None:
        raise errors.invalid(f'"{name}" is missing. {hint}', param=name)
    if not (isinstance(value, str) and value):
        raise errors.invalid(f'"{name}" must be a non-empty string, not {kind(value)}.', param=name)
    return value


def documents(fields: Fields, name: str = "documents", *, keys: Sequence[str] = ("text",)) -> list[str]:
    """A list of texts. Of an object its `keys` are read: the bare text where that is the only one, else a
    line `key: value` for each that it has, in their order.
    """
    value = fields.get(name)
    if value is None:
        raise errors.invalid(f'"{name}" is missing. Send a list of strings, the texts to rank.', param=name)
    if not isinstance(value, list):
        raise errors.invalid(f'"{name}" must be a list of strings, not {kind(value)}.', param=name)
    return texts(value, name, keys=keys)


def texts(values: list[Any], name: str, *, keys: Sequence[str] = ("text",)) -> list[str]:
    """The entries of a list, see `documents`."""
    if not values:
        raise errors.invalid(f'"{name}" is empty. Send at least one text to rank.', param=name)
    if len(values) > MAX_DOCUMENTS:
        raise errors.invalid(
            f'"{name}" holds {len(values)} entries, more than {MAX_DOCUMENTS}. '
            "Send them in several requests.",
            param=name,
        )
    if set(map(type, values)) == {str}:
        return values
    return [_document(entry, f"{name}[{index}]", keys) for index, entry in enumerate(values)]


def _document(entry: Any, param: str, keys: Sequence[str]) -> str:
    if isinstance(entry, str):
        return entry
    found = {key: entry[key] for key in keys if key in entry} if isinstance(entry, dict) else {}
    if found and all(isinstance(value, str) for value in found.values()):
        if tuple(keys) == ("text",):
            return str(found["text"])
        return "\n".join(f"{key}: {value}" for key, value in found.items())
    wanted = " or ".join(f'"{errors.shown(key)}"' for key in keys)
    raise errors.invalid(
        f'"{param}" must be a string, or an object with a string {wanted}, not {kind(entry)}.', param=param
    )


def names(fields: Fields, name: str, *, absent: Sequence[str]) -> Sequence[str]:
    """A list of the names of fields."""
    value = fields.get(name)
    if value is None or value == []:
        return absent
    if not (isinstance(value, list) and all(isinstance(entry, str) and entry for entry in value)):
        raise errors.invalid(f'"{name}" must be a list of field names, not {kind(value)}.', param=name)
    return value


def count(fields: Fields, name: str) -> int | None:
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
    if number is None or not 0 <= number < _MAX_COUNT:
        raise errors.invalid(f'"{name}" must be a positive integer, not {kind(value)}.', param=name)
    return number or None


def flag(fields: Fields, name: str, *, absent: bool) -> bool:
    """A boolean, or one written as a string."""
    value = fields.get(name)
    if value is None:
        return absent
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise errors.invalid(f'"{name}" must be true or false, not {kind(value)}.', param=name)


def kind(value: Any) -> str:
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
