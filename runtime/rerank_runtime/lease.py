"""Who of several pods fetches: a lease on a volume that they share.

A lock of the file system would not do. On NFS one may outlive a node that crashed, and on some network file
systems flock succeeds for everybody. So a lease is a small file that its holder rewrites every now and then.
Whoever has seen it unchanged for `seconds` of its own clock takes it over by renaming a file of its own onto
it: no two machines' clocks are compared, and nothing has to be cleaned up after a crash. The holder reads the
file before it rewrites it, through a new open, which NFS answers from the server.

Where the holder ran on the same kernel there is a quicker proof of its death: it held a flock, and that is
free. Believed only after a few missed rewrites, because of the file systems where it is always free.

The lease saves work and nothing depends on it: two downloads of the same file at once would write the same
bytes to the same places (download.py).
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
import uuid
from pathlib import Path

log = logging.getLogger(__name__)

# Without a sign of life a holder is dead after so many seconds.
SECONDS = 20.0
# Rewrites within that time.
_BEATS = 10
# Of that time: unchanged for so long, a holder on this kernel is asked for its flock.
_QUIET = 0.25
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Every rewrite has the same length: a reader never sees half of a longer one.
_LENGTH = 256


class Lease:
    """A lease that this process may hold.

    Args:
        path: The file.
        seconds: How long a holder may show no sign of life.
    """

    def __init__(self, path: Path, *, seconds: float = SECONDS) -> None:
        self._path, self._seconds = path, seconds
        self._id = uuid.uuid4().hex
        self._kernel = _kernel()
        self._beat = 0
        self._descriptor: int | None = None
        self._seen: bytes = b""
        self._since = 0.0
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> bool:
        """Somebody else has taken it over."""
        return self._lost.is_set()

    def acquire(self) -> bool:
        """Take the lease if nobody has it. To be called every now and then until it is true.

        Raises:
            OSError: The volume cannot hold it.
        """
        self._ended.clear()
        if self._create() or self._take_over():
            self._keep()
            return True
        return False

    def release(self) -> None:
        """Give the lease back at once, if it is ours."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._descriptor is not None:
            if self.is_ours():
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def is_ours(self) -> bool:
        """Whether this process holds it, as the volume says now.

        Raises:
            OSError: The volume does not say.
        """
        content = self._read()
        return content is not None and _field(content, "id") == self._id

    def _create(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            return False
        if not _flock(descriptor):
            # Somebody looked at the file before it was locked, and takes it over.
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        self._write()
        return True

    def _take_over(self) -> bool:
        content = self._read()
        now = time.monotonic()
        if content is None:
            return False
        if content != self._seen:
            self._seen, self._since = content, now
            return False
        quiet = now - self._since
        old = None
        if quiet < self._seconds:
            if quiet < self._seconds * _QUIET or _field(content, "kernel") != self._kernel:
                return False
            old = self._locked_by_nobody()
            if old is None:
                return False
        try:
            log.warning(
                "Nobody renews the lease %s%s: taking it over.",
                self._path,
                "" if old is None else ", and its holder on this machine is gone",
            )
            return self._replace()
        finally:
            if old is not None:
                os.close(old)

    def _replace(self) -> bool:
        claim = self._path.with_name(f"{self._path.name}.{self._id}")
        descriptor = os.open(claim, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
        _flock(descriptor)
        self._descriptor = descriptor
        self._write()
        claim.replace(self._path)
        # Another pod may have decided the same at the same moment; the later rename stands.
        self._ended.wait(self._seconds / _BEATS)
        if self.is_ours():
            return True
        os.close(descriptor)
        self._descriptor = None
        return False

    def _keep(self) -> None:
        self._lost.clear()
        self._thread = threading.Thread(target=self._rewrite, name="lease", daemon=True)
        self._thread.start()

    def _rewrite(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(self._seconds / _BEATS):
            try:
                if not self.is_ours():
                    break
                self._write()
                last = time.monotonic()
            except OSError as error:
                log.warning("The lease %s cannot be renewed: %s", self._path, error.strerror)
                if time.monotonic() - last > self._seconds / 2:
                    break
        else:
            return
        self._lost.set()

    def _write(self) -> None:
        assert self._descriptor is not None, "held"  # noqa: S101 - narrows
        self._beat += 1
        content = {"id": self._id, "kernel": self._kernel, "beat": self._beat}
        os.pwrite(self._descriptor, json.dumps(content).encode().ljust(_LENGTH), 0)

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def _locked_by_nobody(self) -> int | None:
        """The lease's file, locked by us, if its holder's lock is gone."""
        try:
            descriptor = os.open(self._path, os.O_RDWR)
        except FileNotFoundError:
            return None
        if _flock(descriptor, unsupported=False):
            return descriptor
        os.close(descriptor)
        return None


def _flock(descriptor: int, *, unsupported: bool = True) -> bool:
    """Lock a file if nobody has; `unsupported` is the answer where the file system has no such locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
            return unsupported
        raise
    return True


def _kernel() -> str:
    """Names the running kernel; flock is to be trusted between its processes alone."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return uuid.uuid4().hex


def _field(content: bytes, name: str) -> str | None:
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return str(value.get(name)) if isinstance(value, dict) else None
