"""One file on its way: what has arrived of it is kept on disk, and taken up again by whoever comes next.

A part holds the file's first bytes and nothing else: bytes are written at their own positions, a part is
never shortened, and one that went wrong is unlinked. So even two writers at once, which the lease is there to
prevent, write the same bytes to the same places; and what becomes a file has had its hash checked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from rerank_runtime import volume
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.listing import Hasher, RemoteFile
from rerank_runtime.patience import HubError, Patience

# Gives a file's bytes from a position on, each piece with its own position.
Read = Callable[[int], Iterator[tuple[int, bytes]]]

_BLOCK = 2**20


def part_name(file: RemoteFile) -> str:
    """Name of a file's part: by content, so that a part is never taken for another file's, and by path, so
    that two files of the same content do not meet in one.
    """
    path = hashlib.sha256(file.name.encode()).hexdigest()[:8]
    return f"{file.oid}-{path}"


class Download:
    """A file's way to its place.

    Args:
        file: The file.
        part: Where its first bytes are kept.
        target: Where it ends, whole.
        patience: Is told what arrives, and when the disk is at work.
    """

    def __init__(self, file: RemoteFile, part: Path, target: Path, patience: Patience) -> None:
        self._file, self._part, self._target, self._patience = file, part, target, patience
        self._have = 0
        self._hash: Hasher = file.hasher()
        self._descriptor: int | None = None
        self._rejected = False

    def run(self, read: Read) -> None:
        """Bring the file to its place; one try.

        Raises:
            HubError: The hub did not give all of it, or something else.
            Failure: The volume cannot take it, or the hub gives something else again and again.
            StoppedError: The download was given up.
        """
        file = self._file
        if self._target.is_file():
            self._patience.moved(file.name, file.size)
            return
        if self._descriptor is None:
            self._open()
        if self._have < file.size:
            for position, piece in read(self._have):
                self._patience.check()
                self._take(position, piece)
        if self._have < file.size:
            raise HubError(self._cut(), transient=True)
        self._finish()

    def close(self) -> None:
        """Let go of the part."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        with volume.errors(self._part.parent), self._patience.busy():
            if self._part.is_file() and self._part.stat().st_size > self._file.size:
                self._part.unlink()
            self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o644)
            self._have, self._hash = 0, self._file.hasher()
            while block := os.pread(self._descriptor, _BLOCK, self._have):
                self._patience.check()
                self._hash.update(block)
                self._have += len(block)
        self._patience.moved(self._file.name, self._have)

    def _take(self, position: int, piece: bytes) -> None:
        if position != self._have:
            if position != 0:
                raise HubError(self._misplaced(position), transient=True)
            self._discard()
            self._open()
        if self._have + len(piece) > self._file.size:
            self._reject(f"more than the {self._file.size} bytes that the hub lists")
        assert self._descriptor is not None, "opened by run"  # noqa: S101 - narrows
        with volume.errors(self._part.parent):
            rest = memoryview(piece)
            while rest:
                written = os.pwrite(self._descriptor, rest, self._have)
                self._hash.update(rest[:written])
                self._have += written
                rest = rest[written:]
        self._patience.moved(self._file.name, self._have)

    def _finish(self) -> None:
        told = self._hash.hexdigest()
        if told != self._file.oid:
            self._reject(f"a hash of {told[:12]}… where the hub lists {self._file.oid[:12]}…")
        assert self._descriptor is not None, "opened by run"  # noqa: S101 - narrows
        with volume.errors(self._part.parent), self._patience.busy():
            os.fsync(self._descriptor)
            self.close()
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._part.replace(self._target)
            volume.sync_directory(self._target.parent)

    def _discard(self) -> None:
        """Unlink the part rather than shorten it: another process may still hold it open."""
        self.close()
        with volume.errors(self._part.parent):
            self._part.unlink(missing_ok=True)
        self._patience.again(self._file.name)

    def _reject(self, what: str) -> None:
        """What arrived is not the file. Once that may be a part that was damaged on disk, or on the way."""
        self._discard()
        failure = Failure(
            Reason.WEIGHTS_CORRUPT,
            f"{self._file.name} arrives with {what}: the hub or something on the way to it changes files. "
            "Nothing of it was kept.",
            retriable=True,
        )
        again, self._rejected = not self._rejected, True
        raise HubError(failure, transient=again)

    def _cut(self) -> Failure:
        return Failure(
            Reason.HUB_UNREACHABLE,
            f"The hub ended {self._file.name} after {self._have} of {self._file.size} bytes.",
            retriable=True,
        )

    def _misplaced(self, position: int) -> Failure:
        return Failure(
            Reason.HUB_UNREACHABLE,
            f"The hub sent {self._file.name} from byte {position} on where it was asked from {self._have}.",
            retriable=True,
        )
