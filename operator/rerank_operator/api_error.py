"""What the API server answers, or that it did not: an object, or the error that a refusal is. Pure."""

from typing import Any, Final

import orjson

_UNREADABLE: Final = "Unreadable"


class ApiError(Exception):
    """The API server refused a request, or could not be reached (`status` 0). Carries no request body."""

    def __init__(
        self, status: int, reason: str, message: str, *, causes: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes

    @property
    def conflict(self) -> bool:
        """The object changed meanwhile, or another field manager owns what we would set."""
        return self.status == 409

    @property
    def outdated(self) -> bool:
        """The object is not as it was when the request was planned: look again."""
        return self.conflict and "FieldManagerConflict" not in self.causes

    @property
    def missing(self) -> bool:
        """There is no such object, as the API server itself says: a proxy's page for 404 says nothing."""
        return self.status == 404 and self.reason == "NotFound"

    @property
    def away(self) -> bool:
        """It is about the API server, or the way to it, and not about the request."""
        return self.status in {0, 429} or self.status >= 500 or self.reason == _UNREADABLE

    @property
    def ending(self) -> bool:
        """The namespace is being deleted: nothing can be made in it any more, and nothing need be."""
        return "NamespaceTerminating" in self.causes

    @property
    def refused(self) -> bool:
        """The request itself is not acceptable: the same again is of no use until something changes."""
        return self.status in {400, 403, 413, 422} and not self.ending and self.reason != _UNREADABLE


class NotLeaderError(Exception):
    """A write was held back because this process does not hold the Lease any more."""


def decode(status: int, data: bytes, what: str) -> dict[str, Any]:
    """The object in an answer with this HTTP status; `what` was asked, for the message.

    Raises:
        ApiError: it is a refusal, or no object.
    """
    try:
        body = orjson.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(
            status if status >= 400 else 0, _UNREADABLE, f"{what}: the answer is not a JSON object"
        )
    if status >= 400:
        causes = (body.get("details") or {}).get("causes") or ()
        raise ApiError(
            status,
            str(body.get("reason", "")),
            str(body.get("message", ""))[:2000],
            causes=frozenset(str(cause.get("reason", "")) for cause in causes),
        )
    return body
