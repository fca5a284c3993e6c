"""All files of a commit, several at once, watched: the one place that decides that a hub is waited for no
longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TypeVar

from rerank_runtime.download import Download, part_name
from rerank_runtime.hub import Hub
from rerank_runtime.listing import Listing, RemoteFile
from rerank_runtime.patience import Patience

T = TypeVar("T")

# Files at once: large ones share the line, many small ones do not wait for one another.
PARALLEL = 4
# Seconds between two looks.
_INTERVAL = 0.25
# Seconds that threads get to notice that they are stopped; one that waits for a silent hub takes longer.
_ENDING = 1.0

# Called every now and then while a download runs; what it raises ends the download.
Look = Callable[[], None]


def ask(call: Callable[[], T], patience: Patience, look: Look) -> T:
    """The answer to one question, tried again while the patience lasts.

    Raises:
        Failure: There is none.
    """
    return _watched([partial(patience.keep_trying, call)], patience, look)[0]


def transfer(
    hub: Hub, listing: Listing, *, parts: Path, target: Path, patience: Patience, look: Look
) -> None:
    """Bring all files of a listing to their places, each whole and checked.

    Args:
        hub: The hub.
        listing: The files.
        parts: Directory of what has not arrived whole.
        target: Directory of what has.
        patience: How long to wait for the hub.
        look: Called a few times a second.

    Raises:
        Failure: Why it cannot be done; what has arrived is kept.
    """

    def bring(file: RemoteFile) -> None:
        download = Download(file, parts / part_name(file), target / file.name, patience)
        try:
            patience.keep_trying(lambda: download.run(partial(hub.chunks, listing.commit, file)))
        finally:
            download.close()

    first, *others = sorted(listing.files, key=lambda file: file.size)
    # The smallest alone: what is refused is refused once, and before anything large moves.
    _watched([partial(bring, first)], patience, look)
    _watched([partial(bring, file) for file in others], patience, look)


def _watched(calls: Iterable[Callable[[], T]], patience: Patience, look: Look) -> list[T]:
    """Results of calls that run in threads, until one fails or the hub is waited for no longer."""
    pool = ThreadPoolExecutor(PARALLEL, "fetch")
    futures: list[Future[T]] = [pool.submit(call) for call in calls]
    pending: set[Future[T]] = set(futures)
    try:
        while pending:
            done, pending = wait(pending, timeout=_INTERVAL, return_when=FIRST_EXCEPTION)
            look()
            for future in done:
                future.result()
            if pending:
                patience.judge()
    except BaseException:
        # The first failure is told at once: other files' downloads may take hours.
        patience.stop()
        pool.shutdown(wait=False, cancel_futures=True)
        wait(pending, timeout=_ENDING)
        raise
    pool.shutdown(wait=False)
    return [future.result() for future in futures]
