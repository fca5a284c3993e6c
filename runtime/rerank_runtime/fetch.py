"""`rerank-runtime fetch`: the init container that brings the weights, and the only one that has the hub's
token.

A folder of weights is whole or it is not there (weights_folder). Pods that share a store fetch a commit once
(lease); what has arrived of a file is kept and taken up again (download); the hub is waited for as long as
something arrives (patience).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rerank_runtime import lease, status_server, termination, volume, wanted
from rerank_runtime.failure import TOKEN_FIELD, Failure, Reason
from rerank_runtime.hub import Hub, configure
from rerank_runtime.listing import COMMIT, Listing
from rerank_runtime.obtain import Job, obtain
from rerank_runtime.patience import Patience, StoppedError
from rerank_runtime.status import Download, Phase, Source, Status
from rerank_runtime.transfer import ask
from rerank_runtime.wanted import Wanted
from rerank_runtime.weights_folder import WeightsFolder

log = logging.getLogger(__name__)

# Seconds. A hub that does not answer becomes a condition within a minute, tries and their waits included;
# once bytes have come, the patience is counted from the last of them.
PATIENCE = 30.0
REQUEST_TIMEOUT = 10.0
_FIRST_WAIT = 1.0
# Seconds for the work to end by itself when the pod is stopped.
_GRACE = 3.0

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
PUBLIC_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Settings:
    """What `rerank-runtime fetch` is told. The token never appears in a log, argument or message.

    Args:
        repo: org/name.
        revision: Branch, tag or commit. A commit that is in the store already is not asked for again.
        directory: Gets `model` and `source.json`: links to where the weights are.
        store: Where weights are kept, shared with other pods; None for a place in `directory`, which is
            nobody else's.
        endpoint: The hub, None for the public one.
        file: Pattern of the GGUF file to use; None takes safetensors where there are any.
        python: Whether the repository's Python files may be run, and so are fetched.
        token: The hub's.
        status_port: Port of /status.
        patience: Seconds to wait for a silent hub.
        first_wait: Seconds before the second try.
        lease_seconds: How long another pod that fetches may show no sign of life.
        termination_path: Where the last words go.
    """

    repo: str
    revision: str
    directory: Path
    store: Path | None = None
    endpoint: str | None = None
    file: str | None = None
    python: bool = False
    token: str | None = field(default=None, repr=False)
    status_port: int = status_server.PORT
    patience: float = PATIENCE
    first_wait: float = _FIRST_WAIT
    lease_seconds: float = lease.SECONDS
    termination_path: Path = termination.PATH

    @property
    def hub(self) -> str:
        return (self.endpoint or PUBLIC_HUB).rstrip("/")

    def folder(self, commit: str) -> WeightsFolder:
        """Where a commit's files are or will be."""
        store = self.store or self.directory / "weights"
        return WeightsFolder.of(store, self.repo, commit, hub=self.hub, file=self.file, python=self.python)


async def run(settings: Settings) -> int:
    """Fetch, showing the progress on the status port; returns the exit code."""
    status = Status(Phase.DOWNLOADING)
    stop, stopped = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with status_server.running(status_server.create_app(status), settings.status_port):
        work = asyncio.create_task(asyncio.to_thread(fetch, settings, status, stop))
        waiter = asyncio.create_task(stopped.wait())
        await asyncio.wait({work, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if not work.done():
            # Time to give the lease back. A thread that reads from a silent hub cannot be interrupted.
            stop.set()
            await asyncio.wait({work}, timeout=_GRACE)
            log.warning("Stopped before the weights were whole; what has arrived is kept.")
            os._exit(128 + signal.SIGTERM)
        try:
            await work
        except Failure as failure:
            status.fail(failure)
            termination.write(failure, settings.termination_path)
            log.error("%s: %s", failure.reason, failure.message)  # noqa: TRY400 - a fact, no bug
            return 1
    return 0


def fetch(settings: Settings, status: Status, stop: threading.Event | None = None) -> None:
    """Bring the model's files to the store, whole and checked, and link the directory to them.

    Args:
        settings: What and where to.
        status: Is told how far it is.
        stop: Ends the work when it is set.

    Raises:
        Failure: With the reason and the way out.
        StoppedError: `stop` was set.
    """
    stop = stop or threading.Event()
    _check(settings)
    configure(settings.directory / ".huggingface")
    with volume.errors(settings.store or settings.directory):
        settings.directory.mkdir(parents=True, exist_ok=True)
        folder = _kept(settings, status) or _fetched(settings, status, stop)
        folder.link(settings.directory)
        if settings.store is None:
            folder.remove_others()
    status.reason = status.message = ""


def _kept(settings: Settings, status: Status) -> WeightsFolder | None:
    """The folder of a pinned commit that is whole already: the hub is not needed for it, and may be down."""
    if not COMMIT.fullmatch(settings.revision):
        return None
    folder = settings.folder(settings.revision)
    sizes = folder.sizes()
    if sizes is None:
        return None
    total = sum(sizes.values())
    status.source, status.download = folder.source(), Download(total, total, 0)
    log.info("%s at %s is there already: %s bytes.", settings.repo, settings.revision, total)
    return folder


def _fetched(settings: Settings, status: Status, stop: threading.Event) -> WeightsFolder:
    hub = Hub(settings.hub, settings.repo, settings.token, min(REQUEST_TIMEOUT, settings.patience))
    patience = Patience(settings.hub, settings.patience, first_wait=settings.first_wait)
    chosen: list[Wanted] = []

    def choose(names: Iterable[str]) -> Iterable[str]:
        chosen[:] = [wanted.choose(names, settings.file, python=settings.python)]
        return chosen[0].names

    def listing() -> Listing:
        return hub.listing(settings.revision, choose)

    def look() -> None:
        if stop.is_set():
            raise StoppedError
        asked = patience.holding
        status.reason, status.message = (asked.reason, asked.message) if asked else ("", "")

    found = ask(listing, patience, look)
    file = chosen[0].gguf.name if chosen[0].gguf else None
    status.source = Source(settings.repo, found.commit, file)
    log.info("%s at %s: %s bytes in %s files", settings.repo, found.commit, found.total, len(found.files))
    folder = settings.folder(found.commit)
    obtain(
        Job(
            hub=hub,
            listing=found,
            wanted=chosen[0],
            folder=folder,
            status=status,
            stop=stop,
            patience=settings.patience,
            first_wait=settings.first_wait,
            lease_seconds=settings.lease_seconds,
        )
    )
    return folder


def _check(settings: Settings) -> None:
    if not _REPO.fullmatch(settings.repo):
        raise Failure(
            Reason.INVALID_SOURCE, f"{settings.repo} is no valid repository name: it must be org/name."
        )
    address = urlsplit(settings.hub)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise Failure(
            Reason.INVALID_SOURCE, f"{settings.hub} is no address of a hub: it must begin with https://."
        )
    if "@" in address.netloc:
        # Not repeated here: it would be a secret in a log and in a condition.
        raise Failure(
            Reason.INVALID_SOURCE,
            f"The hub's address must hold no credentials: put a token into the Secret of {TOKEN_FIELD}.",
        )
