"""`rerank-runtime fetch`: the init container that brings the weights, and the only one that has the hub's
token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rerank_runtime import progress, safetensors_header, selection, status_server, termination
from rerank_runtime.failure import TOKEN_FIELD, Failure, Reason
from rerank_runtime.status import Download, Phase, Source, Status

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds. A hub that does not answer becomes a condition within a minute, tries and their waits included;
# once bytes have come, the patience is counted from the last of them.
PATIENCE = 30.0
REQUEST_TIMEOUT = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 8.0
_PROGRESS_INTERVAL = 0.5
# Files at once: large ones share the line, many small ones do not wait for one another.
_PARALLEL = 4

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PUBLIC_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Settings:
    """What `rerank-runtime fetch` is told. The token never appears in a log, argument or message."""

    repo: str
    revision: str
    directory: Path
    endpoint: str | None = None
    token: str | None = None
    status_port: int = status_server.PORT
    patience: float = PATIENCE
    termination_path: Path = termination.PATH

    @property
    def model_directory(self) -> Path:
        return self.directory / "model"

    @property
    def hub(self) -> str:
        return (self.endpoint or PUBLIC_HUB).rstrip("/")


@dataclass(frozen=True)
class Listing:
    """One commit of a repository: the files to fetch and their sizes in bytes."""

    commit: str
    sizes: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.sizes.values())


async def run(settings: Settings) -> int:
    """Fetch, showing the progress on the status port; returns the exit code."""
    status = Status(Phase.DOWNLOADING)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with status_server.running(status_server.create_app(status), settings.status_port):
        work = asyncio.create_task(asyncio.to_thread(fetch, settings, status))
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not work.done():
            # Threads in a download cannot be interrupted; files that are whole are kept for the next time.
            os._exit(0)
        try:
            await work
        except Failure as failure:
            status.fail(failure)
            termination.write(failure, settings.termination_path)
            log.error("%s: %s", failure.reason, failure.message)  # noqa: TRY400 - a fact, no bug
            return 1
    return 0


def fetch(settings: Settings, status: Status) -> None:
    """Bring the model's files to the directory, whole and checked; files that are there already are kept.

    Raises:
        Failure: with the reason and the way out.
    """
    _configure_client(settings.directory)
    _check(settings)
    try:
        settings.model_directory.mkdir(parents=True, exist_ok=True)
        progress.remove_parts(settings.model_directory)
        found = _patiently(settings, lambda: _list(settings), lambda: 0)
        status.source = Source(settings.repo, found.commit)
        log.info("%s at %s: %s bytes in %s files", settings.repo, found.commit, found.total, len(found.sizes))
        _check_space(settings.model_directory, found)
        _download(settings, found, status)
        _remove_others(settings.model_directory, found)
        _write_source(settings, found)
    except OSError as error:
        raise _explain(settings, error) from error


def _configure_client(directory: Path) -> None:
    # Read by huggingface_hub when it is first imported, which happens below only.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DOWNLOAD_TIMEOUT"] = str(int(REQUEST_TIMEOUT))
    # Xet is a second protocol with hosts of its own, which mirrors and proxies of a hub do not carry.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ["HF_HOME"] = str(directory / ".huggingface")
    os.environ.pop("HF_HUB_OFFLINE", None)
    from huggingface_hub import constants  # noqa: PLC0415 - after its environment is set

    # It writes in steps of 10 MB, in which a slow download seems to stand still for minutes.
    constants.DOWNLOAD_CHUNK_SIZE = 2**20


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


def _list(settings: Settings) -> Listing:
    from huggingface_hub import HfApi  # noqa: PLC0415 - after its environment is set

    # token=False: an absent token must not be looked for in files of the image.
    api = HfApi(endpoint=settings.hub, token=settings.token or False)
    info = api.model_info(
        settings.repo, revision=settings.revision, files_metadata=True, timeout=REQUEST_TIMEOUT
    )
    if not info.sha:
        raise Failure(
            Reason.INVALID_SOURCE, f"The hub {settings.hub} does not say which commit {settings.revision} is."
        )
    sizes = {sibling.rfilename: int(sibling.size or 0) for sibling in info.siblings or ()}
    return Listing(info.sha, {name: sizes[name] for name in selection.select(sizes)})


def _check_space(directory: Path, found: Listing) -> None:
    missing = found.total - progress.bytes_on_disk(directory, list(found.sizes))
    free = shutil.disk_usage(directory).free
    if missing > free:
        raise Failure(
            Reason.DISK_FULL,
            f"The weights need {found.total / 2**30:.1f} GiB and the volume has {free / 2**30:.1f} GiB left.",
            retriable=True,
        )


def _download(settings: Settings, found: Listing, status: Status) -> None:
    shown = progress.Progress(found.total)
    names = sorted(found.sizes, key=lambda name: found.sizes[name])

    def note() -> int:
        done = progress.bytes_on_disk(settings.model_directory, names)
        shown.add(time.monotonic(), done)
        status.download = Download(shown.done, shown.total, shown.eta_seconds)
        return done

    # The smallest alone: what is refused is refused once, and before anything large moves.
    _patiently(settings, _one(settings, found, names[0]), note)
    pool = ThreadPoolExecutor(_PARALLEL, "fetch")
    pending = {pool.submit(_patiently, settings, _one(settings, found, name), note) for name in names[1:]}
    try:
        while pending:
            done, pending = wait(pending, timeout=_PROGRESS_INTERVAL, return_when=FIRST_EXCEPTION)
            note()
            for future in done:
                future.result()
    finally:
        # The first failure is told at once: other files' downloads may take hours.
        pool.shutdown(wait=False, cancel_futures=True)


def _one(settings: Settings, found: Listing, name: str) -> Callable[[], None]:
    """The download of one file, checked against the hub's size and its own header."""

    def download() -> None:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - after its environment is set

        path = settings.model_directory / name
        if path.is_file() and path.stat().st_size != found.sizes[name]:
            path.unlink()
        hf_hub_download(
            settings.repo,
            name,
            revision=found.commit,
            local_dir=settings.model_directory,
            endpoint=settings.hub,
            token=settings.token or False,
            etag_timeout=REQUEST_TIMEOUT,
        )
        size = path.stat().st_size
        if size != found.sizes[name]:
            path.unlink()
            raise Failure(
                Reason.WEIGHTS_TRUNCATED,
                f"{name} arrived with {size} bytes where the hub lists {found.sizes[name]}.",
                retriable=True,
            )
        if name.endswith(".safetensors"):
            safetensors_header.read(path)

    return download


def _patiently(settings: Settings, call: Callable[[], T], moved: Callable[[], int]) -> T:
    """Call until it succeeds or the hub has been silent for as long as the patience lasts.

    Args:
        settings: For the message and the patience.
        call: What to try.
        moved: A number that grows while bytes arrive.
    """
    started, seen, pause = time.monotonic(), moved(), _FIRST_WAIT
    while True:
        try:
            return call()
        except Failure:
            raise
        except Exception as error:
            failure = _explain(settings, error)
            if moved() > seen:
                started, seen, pause = time.monotonic(), moved(), _FIRST_WAIT
            if failure.reason is not Reason.HUB_UNREACHABLE:
                raise failure from error
            if time.monotonic() - started + pause > settings.patience:
                raise failure from error
            log.warning("%s Trying again in %.0f s.", failure.message, pause)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_WAIT)


def _explain(settings: Settings, error: BaseException) -> Failure:
    from rerank_runtime import hub_errors  # noqa: PLC0415 - imports huggingface_hub

    return hub_errors.explain(
        error,
        repo=settings.repo,
        revision=settings.revision,
        hub=settings.hub,
        has_token=settings.token is not None,
    )


def _remove_others(directory: Path, found: Listing) -> None:
    """Remove what an earlier revision left: a file that this commit lacks would change how the model is
    served.
    """
    for path in directory.rglob("*"):
        relative = path.relative_to(directory)
        if path.is_file() and relative.parts[0] != ".cache" and str(relative) not in found.sizes:
            path.unlink()


def _write_source(settings: Settings, found: Listing) -> None:
    """Write source.json, last and at once: where it is, the model is whole."""
    content: dict[str, Any] = {"repo": settings.repo, "revision": found.commit, "endpoint": settings.hub}
    partial = settings.directory / "source.json.partial"
    partial.write_text(json.dumps(content))
    partial.replace(settings.directory / "source.json")
