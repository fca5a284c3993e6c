"""The volume that the weights are on: what its errors mean, and whether there is room."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rerank_runtime.failure import Failure, Reason

GIB = 2**30
# EFBIG is what a limit on the size of a process' files gives.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def errors(directory: Path) -> Iterator[None]:
    """Tell what goes wrong with a volume as a failure.

    Args:
        directory: Where on the volume the block works, for the message.

    Raises:
        Failure: `DiskFull` or `VolumeUnusable` instead of an OSError of the block.
    """
    try:
        yield
    except OSError as error:
        raise explain(error, directory) from error


def explain(error: OSError, directory: Path) -> Failure:
    """What an error of the file system means."""
    if error.errno in _FULL:
        return Failure(
            Reason.DISK_FULL,
            f"The disk is full: the volume for the weights at {directory} has {_free(directory)}. What has "
            "arrived is kept; a larger volume lets the download go on.",
            retriable=True,
        )
    what = os.strerror(error.errno) if error.errno else str(error)
    return Failure(
        Reason.VOLUME_UNUSABLE,
        f"The volume for the weights cannot be used ({what}: {error.filename or directory}): the pod's user "
        f"{os.getuid()} must be able to write to it.",
        retriable=True,
    )


def check_space(directory: Path, missing: int, total: int) -> None:
    """Refuse a download that cannot fit.

    Args:
        directory: Where it goes.
        missing: Bytes that are not there yet.
        total: Bytes of all files, for the message.

    Raises:
        Failure: `DiskFull`.
    """
    free = shutil.disk_usage(directory).free
    if missing > free:
        raise Failure(
            Reason.DISK_FULL,
            f"The weights need {total / GIB:.1f} GiB, of which {missing / GIB:.1f} GiB are missing, and the "
            f"volume has {free / GIB:.1f} GiB left.",
            retriable=True,
        )


def check_converted(directory: Path, size: int) -> None:
    """Refuse to write weights that cannot fit beside those that they are made from.

    Args:
        directory: Where they go.
        size: Their bytes.

    Raises:
        Failure: `DiskFull`.
    """
    free = shutil.disk_usage(directory).free
    if size > free:
        raise Failure(
            Reason.DISK_FULL,
            f"The converted weights need {size / GIB:.1f} GiB and the volume has {free / GIB:.1f} GiB left.",
            retriable=True,
        )


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk, not only in memory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Not every network file system can: its server keeps directories on disk anyway.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole or not at all, also after a crash."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)


def _free(directory: Path) -> str:
    try:
        return f"{shutil.disk_usage(directory).free / GIB:.1f} GiB left"
    except OSError:
        return "no space left"
