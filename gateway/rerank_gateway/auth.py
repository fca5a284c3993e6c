"""Who is calling: from the key in the head to the APIKey that accepts it."""

import hmac
from typing import Final

from rerank_api import keys
from rerank_gateway import errors
from rerank_gateway.records import KeyRecord
from rerank_gateway.state import State

_UNKNOWN: Final = "The API key is not valid: it is mistyped, or its APIKey was deleted."


def authenticate(state: State, credential: str | None, now: float) -> KeyRecord:
    """The APIKey that accepts `credential` at `now` (Unix seconds).

    Looked up by digest, so that the time it takes says nothing about a stored key, and compared in
    constant time once more. Only the holder of the whole key is told that it expired or is disabled.

    Raises:
        ApiError: 401 with the reason.
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
    reason, code = _UNKNOWN, "invalid_api_key"
    for known, key in state.keys(digest):
        if not hmac.compare_digest(known.sha256, digest):
            continue
        if key.disabled:
            reason, code = "The API key is disabled.", "api_key_disabled"
        elif now < known.not_before:
            reason, code = "The API key is not valid yet.", "api_key_not_yet_valid"
        elif now >= min(known.expires_at, key.expires_at):
            reason, code = "The API key has expired.", "api_key_expired"
        else:
            return key
    raise errors.unauthorized(reason, code=code)
