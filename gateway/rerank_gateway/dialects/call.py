"""What the data path knows of a request in any dialect: the rankings that it wants and how to answer."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rerank_gateway import errors
from rerank_gateway.errors import ApiError
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.rerank_request import RerankRequest

Fields = dict[str, Any]
"""A request's body, parsed."""


@dataclass(frozen=True, slots=True)
class Route:
    """What the path says. `model` None: the body names it. `listed`: answers carry `object: "list"`."""

    model: str | None = None
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an answer says besides its scores. `model` by its own name, `created` in Unix seconds."""

    model: str
    request_id: str
    created: int


class Call(Protocol):
    """A valid request."""

    @property
    def model(self) -> str:
        """As the client wrote it."""

    @property
    def requests(self) -> Sequence[RerankRequest]:
        """At least one, each of which becomes one request to a replica."""

    def answer(self, rankings: Sequence[Ranking], stamp: Stamp) -> bytes:
        """The JSON of the answer. `rankings` in the order of `requests`.

        Raises:
            ApiError: 400, the client wanted no cut text and there is one.
        """

    def field(self, place: int, index: int | None) -> str:
        """What the client calls document `index`, or the query where that is None, of request `place`."""


_PARAM: Final = re.compile(r"(query)|documents(\[(\d{1,9})\])?")


def blame(call: Call, place: int, refusal: ApiError) -> ApiError:
    """A replica's refusal of request `place`, in the client's names for what is at fault."""
    found = _PARAM.fullmatch(refusal.param or "")
    if found is None:
        return refusal
    name = call.field(place, None if found[1] else int(found[3] or 0))
    if not (found[1] or found[2]):
        name = name.partition("[")[0]  # the list itself
    message = refusal.message.replace(found[0], name)
    return errors.invalid(message, param=name, status=refusal.status, code=refusal.code)


def refuse_cut(call: Call, rankings: Sequence[Ranking], asked: str) -> None:
    """For a client that asked for no cut text by the field `asked`.

    Raises:
        ApiError: 400 that names the first text that was cut.
    """
    for place, ranking in enumerate(rankings):
        if ranking.truncated is not None:
            cut = ranking.truncated.documents
            name = call.field(place, cut[0] if cut else None)
            raise errors.invalid(
                f'"{name}" is too long for the model and "{asked}" is false.',
                param=name,
                code="text_too_long",
            )


Dialect = Callable[[Fields, Route], Call]
"""Raises ApiError 400, which names the field at fault and says what it should be."""
