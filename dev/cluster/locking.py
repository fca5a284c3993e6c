"""One command at a time: two that build or start the same thing would spoil each other's work."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from dev.cluster.paths import cache_dir
from dev.cluster.progress import say


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of that name, waiting for whoever holds it. The kernel frees it when we end."""
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("cluster", f"another command works on the {name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
