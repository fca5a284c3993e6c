"""Who is calling: from the key in the head to the APIKey that accepts it."""

import hmac
from typing import Final

from rerank_api import keys
from rerank_gateway import errors
from rerank_gateway.records import KeyRecord
from rerank_gateway.source import Source
from rerank_gateway.state import State

_UNKNOWN: Final = "The API key is not valid: it is mistyped, or its APIKey was deleted."
_RETRY_SECONDS: Final = 5


class Authenticator:
    """Decides by the last known state, for as long as that may be relied on.

    A key that was revoked while the API server is away must stop some time: `max_staleness_seconds` after
    the keys of its namespace were last confirmed nothing is accepted any more.
    """

    def __init__(self, state: State, source: Source, max_staleness_seconds: float) -> None:
        self._state = state
        self._source = source
        self._max_staleness_seconds = max_staleness_seconds

    def authenticate(self, credential: str | None, now: float) -> KeyRecord:
        """The APIKey that accepts `credential` at `now` (Unix seconds).

        Looked up by digest, so that the time it takes says nothing about a stored key, and compared in
        constant time once more. Only the holder of the whole key is told that it expired or is disabled.

        Raises:
            ApiError: 401 with the reason, 503 when nobody can say whether the key still holds.
        """
        if credential is None:
            raise errors.unauthorized(
                "No API key given. Send the header Authorization: Bearer KEY or X-API-Key: KEY.",
                code="missing_api_key",
            )
        if keys.key_id(credential) is None:
            raise errors.unauthorized(
                "The API key is not valid: a key starts with rk_ and this one is mistyped or cut off.",
                code="invalid_api_key",
            )
        digest = keys.digest(credential)
        reason, code, stale = _UNKNOWN, "invalid_api_key", False
        for known, key in self._state.keys(digest):
            if not hmac.compare_digest(known.sha256, digest):
                continue
            if self.stale(key.id.namespace):
                stale = True
            elif key.disabled:
                reason, code = "The API key is disabled.", "api_key_disabled"
            elif now < known.not_before:
                reason, code = "The API key is not valid yet.", "api_key_not_yet_valid"
            elif now >= min(known.expires_at, key.expires_at):
                reason, code = "The API key has expired.", "api_key_expired"
            else:
                return key
        if stale or self.stale(None):
            raise errors.unavailable(
                "API keys cannot be checked: where they come from (the Kubernetes API server, or a folder) "
                f"has not been read for more than {self._max_staleness_seconds:g} seconds.",
                code="api_keys_unconfirmed",
                retry_after=_RETRY_SECONDS,
            )
        raise errors.unauthorized(reason, code=code)

    def stale(self, namespace: str | None) -> bool:
        """Whether the keys of a namespace (None: of every one) have gone unconfirmed for too long."""
        return self._source.keys_age(namespace) > self._max_staleness_seconds
