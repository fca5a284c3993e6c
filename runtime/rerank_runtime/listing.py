"""One commit of a repository: its files, how long each is and the hash that its bytes must have. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

COMMIT = re.compile(r"[0-9a-f]{40}")
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Hasher(Protocol):
    """What hashlib's objects are to a download."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes in."""

    def hexdigest(self) -> str:
        """The hash of all bytes so far, in hex."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub lists it.

    Args:
        name: Its path in the repository.
        size: Bytes.
        oid: SHA-256 of its bytes where it is in LFS (64 hex digits), else its git blob id (40 hex digits).

    Raises:
        ValueError: The oid is no such hash, or the size no size.
    """

    name: str
    size: int
    oid: str

    def __post_init__(self) -> None:
        if not _OID.fullmatch(self.oid):
            raise ValueError(f"{self.name} has no hash that could be checked: {self.oid!r}")
        if self.size < 0:
            raise ValueError(f"{self.name} has a size of {self.size} bytes")

    def hasher(self) -> Hasher:
        """A hash whose hexdigest over all of the file's bytes is `oid`."""
        if len(self.oid) == 64:
            return hashlib.sha256()
        # A blob's id is the SHA-1 of a header and the content (git hash-object).
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


@dataclass(frozen=True)
class Listing:
    """The files to fetch of one commit."""

    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)
