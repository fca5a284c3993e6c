"""The text of an API key: `rk_<id: 12 base62>_<secret: 43 base62>_<crc32: 6 base62>`.

The secret carries 256 random bits, so one SHA-256 is a sound hash: there is nothing to guess that a slow
hash would protect (NIST SP 800-63B asks for slow hashing below 112 bits only). The checksum rejects typos
before any look-up and lets secret scanners recognise a key offline; it is no protection.
"""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "rk_"

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 12
_SECRET_LENGTH: Final = 43  # the shortest base62 text that holds 256 bits
_CHECKSUM_LENGTH: Final = 6  # 62**6 > 2**32
_FORMAT: Final = re.compile(
    rf"rk_([0-9A-Za-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}_[0-9A-Za-z]{{{_CHECKSUM_LENGTH}}}"
)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. `text` is the only copy of the secret and stays out of the repr, and so out of logs."""

    text: str = field(repr=False)
    key_id: str
    sha256: str
    hint: str


def mint() -> MintedKey:
    """A new random key from the operating system's generator."""
    key_id = _base62(secrets.randbelow(62**_ID_LENGTH), _ID_LENGTH)
    secret = _base62(secrets.randbits(256), _SECRET_LENGTH)
    body = f"rk_{key_id}_{secret}"
    text = f"{body}_{_checksum(body)}"
    return MintedKey(text=text, key_id=key_id, sha256=digest(text), hint=f"rk_{key_id[:8]}…")


def key_id(text: str) -> str | None:
    """The id of a key whose format and checksum are right, else None."""
    match = _FORMAT.fullmatch(text)
    if match is None or _checksum(text[: -_CHECKSUM_LENGTH - 1]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return match[1]


def brought_id(sha256: str) -> str:
    """The id of a key of the user's own, of which the hash alone is known."""
    return sha256[:_ID_LENGTH]


def digest(text: str) -> str:
    """SHA-256 of the whole key in hex: what a status stores and a gateway looks up."""
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
