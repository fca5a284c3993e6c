"""The token between gateway and model pods, one for each namespace.

The gateway derives it from the master key; pods hold only its hash, which the operator puts into their
environment. So a tenant's namespace holds no secret, and a pod that gives its hash away gives nothing away.
"""

import hashlib
import hmac
import secrets
from typing import Final

_CONTEXT: Final = b"rerank.dev/backend-token/v1:"
_MASTER_BYTES: Final = 32


def new_master() -> str:
    """A new master key as it stands in the Secret: 64 hex digits."""
    return secrets.token_hex(_MASTER_BYTES)


def read_master(text: str) -> bytes:
    """The master key from the text of its file.

    Raises:
        ValueError: the text is not 64 hex digits (white space around them is allowed).
    """
    text = text.strip()
    if len(text) != 2 * _MASTER_BYTES:
        raise ValueError(
            f"backend token master: expected {2 * _MASTER_BYTES} hex digits, got {len(text)} characters"
        )
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError("backend token master: not hex digits") from None


def token(master: bytes, namespace: str) -> str:
    """The token for the model pods of `namespace`: HMAC-SHA256 in hex (RFC 2104)."""
    return hmac.new(master, _CONTEXT + namespace.encode(), hashlib.sha256).hexdigest()


def token_hash(value: str) -> str:
    """SHA-256 of a token in hex: what a pod knows of it."""
    return hashlib.sha256(value.encode()).hexdigest()
