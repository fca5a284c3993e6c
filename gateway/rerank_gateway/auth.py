"""Who is calling: from the key in the head to the APIKey that accepts it."""

import hmac
from typing import Final

from rerank_api import keys
from rerank_gateway import errors
from rerank_gateway.errors import ApiError
from rerank_gateway.records import KeyRecord
from rerank_gateway.source import Source
from rerank_gateway.state import State

# Made keys have 67 characters. A key of the user's own is as hard to guess as it is long, or is no key.
_LENGTHS: Final = range(32, 513)
_UNKNOWN: Final = "The API key is not valid: it is mistyped, or its APIKey was deleted."
_MISTYPED: Final = "The API key is not valid: it is mistyped or cut off."
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
        A key that several APIKeys list is the oldest one's alone: else one that its owner disabled would be
        accepted by whoever copied the hash, and would carry the owner's documents there.

        Raises:
            ApiError: 401 with the reason, 503 when nobody can say whether the key still holds.
        """
        if credential is None:
            raise errors.unauthorized(
                "No API key given. Send the header Authorization: Bearer KEY or X-API-Key: KEY.",
                code="missing_api_key",
            )
        if len(credential) not in _LENGTHS:
            raise errors.unauthorized(_MISTYPED, code="invalid_api_key")
        digest = keys.digest(credential)
        claims = self._state.keys(digest)
        if not claims or not hmac.compare_digest(claims[0].hash.sha256, digest):
            raise self._unknown(credential)
        known, key = claims[0]
        if self.stale(key.id.namespace):
            raise self._unconfirmed()
        if key.disabled:
            raise errors.unauthorized("The API key is disabled.", code="api_key_disabled")
        if now < known.not_before:
            raise errors.unauthorized("The API key is not valid yet.", code="api_key_not_yet_valid")
        if now >= min(known.expires_at, key.expires_at):
            raise errors.unauthorized("The API key has expired.", code="api_key_expired")
        return key

    def stale(self, namespace: str | None) -> bool:
        """Whether the keys of a namespace (None: of every one) have gone unconfirmed for too long."""
        return self._source.keys_age(namespace) > self._max_staleness_seconds

    def _unknown(self, credential: str) -> ApiError:
        mistyped = keys.key_id(credential) is None
        if self.stale(None) and not (mistyped and credential.startswith(keys.PREFIX)):
            return self._unconfirmed()
        return errors.unauthorized(_MISTYPED if mistyped else _UNKNOWN, code="invalid_api_key")

    def _unconfirmed(self) -> ApiError:
        return errors.unavailable(
            "API keys cannot be checked: where they come from (the Kubernetes API server, or a folder) "
            f"has not been read for more than {self._max_staleness_seconds:g} seconds.",
            code="api_keys_unconfirmed",
            retry_after=_RETRY_SECONDS,
        )
