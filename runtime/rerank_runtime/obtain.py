"""From a listing to a whole folder, by this process or by another one that is at it already."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_runtime import gguf, lease, model_files, safetensors_header, scoring_head, volume
from rerank_runtime.failure import Failure
from rerank_runtime.hub import Hub
from rerank_runtime.lease import Lease
from rerank_runtime.listing import Listing
from rerank_runtime.patience import Patience, StoppedError
from rerank_runtime.progress import Progress
from rerank_runtime.status import Download, Status
from rerank_runtime.transfer import transfer
from rerank_runtime.wanted import Wanted
from rerank_runtime.weights_folder import WeightsFolder

log = logging.getLogger(__name__)

# Seconds between two looks at a lease that another pod holds; its whole time is much longer.
_POLL = 1.0


class LeaseLostError(Exception):
    """Another pod has taken over: it must have seen no sign of life of this one."""


@dataclass(frozen=True)
class Job:
    """What is to be brought, where to, and how.

    Args:
        hub: Where from.
        listing: The files.
        wanted: How they were chosen.
        folder: Where to.
        status: Is told how far it is.
        stop: Set when the pod is to end.
        patience: Seconds to wait for a silent hub.
        first_wait: Seconds before the second try.
        lease_seconds: How long a holder of the lease may show no sign of life.
    """

    hub: Hub
    listing: Listing
    wanted: Wanted
    folder: WeightsFolder
    status: Status
    stop: threading.Event
    patience: float
    first_wait: float = 1.0
    lease_seconds: float = lease.SECONDS


def obtain(job: Job) -> None:
    """Return when the folder is whole.

    Raises:
        Failure: It cannot be had, and why.
        OSError: Nor can the volume be used.
        StoppedError: The pod is to end.
    """
    folder, shown = job.folder, Progress(job.listing.total)
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    held = Lease(folder.lease, seconds=job.lease_seconds)
    while folder.sizes() is None:
        if not held.acquire():
            _show(job, shown, folder.bytes_there(job.listing))
            job.status.message = "Another pod fetches these weights to the same volume: waiting for it."
            if job.stop.wait(min(_POLL, job.lease_seconds / 10)):
                raise StoppedError
            continue
        job.status.message = ""
        try:
            if folder.sizes() is None:
                _fetch(job, held, shown)
        except (LeaseLostError, Failure, OSError):
            # Whoever has taken over may have moved away what this process was writing.
            if held.is_ours():
                raise
            log.warning("Another pod has taken over the download of %s.", job.hub.repo)
        finally:
            held.release()
    total = sum((folder.sizes() or {}).values())
    job.status.download = Download(total, total, 0)


def _fetch(job: Job, held: Lease, shown: Progress) -> None:
    folder, listing = job.folder, job.listing
    patience = Patience(job.hub.address, job.patience, total=listing.total, first_wait=job.first_wait)

    def look() -> None:
        if job.stop.is_set():
            raise StoppedError
        if held.lost:
            raise LeaseLostError
        _show(job, shown, patience.done)
        asked = patience.holding
        job.status.reason, job.status.message = (asked.reason, asked.message) if asked else ("", "")

    folder.prepare(listing)
    volume.check_space(folder.staging, listing.total - folder.bytes_there(listing), listing.total)
    transfer(job.hub, listing, parts=folder.parts, target=folder.arriving, patience=patience, look=look)
    model = folder.arriving
    about: dict[str, Any] = {
        "repo": job.hub.repo,
        "revision": listing.commit,
        "endpoint": job.hub.address,
    }
    hashes = {file.name: file.oid for file in listing.files}
    if job.wanted.gguf is not None:
        about["gguf"] = {"file": job.wanted.gguf.name, "quantisation": job.wanted.gguf.quantisation}
        model, hashes = _convert(job, job.wanted.gguf), {}
    elif scoring_head.parts(hashes) and scoring_head.beside(model_files.read(folder.arriving)):
        model = _with_head(job)
        hashes = {name: oid for name, oid in hashes.items() if name not in scoring_head.MADE}
    for path in model.rglob("*.safetensors"):
        safetensors_header.read(path)
    folder.finish(model, about, hashes)


def _convert(job: Job, choice: gguf.Choice) -> Path:
    """The model's directory made from a GGUF file."""
    folder, target = job.folder, _empty(job)
    job.status.message = f"Converting {choice.name} to safetensors."
    others = {file.name: folder.arriving / file.name for file in job.listing.files}
    gguf.convert(others.pop(choice.name), target, others)
    job.status.message = ""
    return target


def _with_head(job: Job) -> Path:
    """The model's directory with the head that lies beside the weights in them."""
    target = _empty(job)
    job.status.message = "Putting the model's head into its weights."
    scoring_head.put_in(job.folder.arriving, target)
    job.status.message = ""
    return target


def _empty(job: Job) -> Path:
    """A directory for what is made of the files. What an interrupted pod left in it is removed."""
    target = job.folder.staging / "model"
    if target.exists():
        shutil.rmtree(target)
    target.mkdir()
    return target


def _show(job: Job, shown: Progress, done: int) -> None:
    shown.add(time.monotonic(), done)
    job.status.download = Download(shown.done, shown.total, shown.eta_seconds)
