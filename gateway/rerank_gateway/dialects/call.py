"""What the data path knows of a request in any dialect: the rankings that it wants and how to answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
        """The JSON of the answer. `rankings` in the order of `requests`."""


Dialect = Callable[[Fields, Route], Call]
"""Raises ApiError 400, which names the field at fault and says what it should be."""
