"""Files that pid 1 writes for vLLM's processes: the chat template and the intake's settings.

They lie in a directory that only this user can enter, so that nobody else in the container's /tmp can put
others in their place.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rerank_runtime.failure import Failure, Reason


@contextmanager
def workspace() -> Iterator[Path]:
    """A private directory while the block runs.

    Raises:
        Failure: `DiskFull` or `InternalError` where none can be made.
    """
    try:
        directory = tempfile.TemporaryDirectory(prefix="rerank-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _failure(error) from error
    with directory as path:
        yield Path(path)


def write(path: Path, text: str) -> Path:
    """Write a file that only this user can read; it must not exist yet.

    Raises:
        Failure: as workspace.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise _failure(error) from error
    return path


def _failure(error: OSError) -> Failure:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure(
            Reason.DISK_FULL, "There is no space left in /tmp for the engine's settings.", retriable=True
        )
    return Failure(
        Reason.INTERNAL_ERROR, f"The engine's settings cannot be written: {error}.", retriable=True
    )
