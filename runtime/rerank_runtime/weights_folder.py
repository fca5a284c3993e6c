"""Where weights are kept: a folder for each commit, which exists under its name only when it is whole.

    STORE/org--name/COMMIT-VARIANT/model/…        the files
    STORE/org--name/COMMIT-VARIANT/source.json    what they are, with sizes and hashes
    STORE/org--name/COMMIT-VARIANT.partial/       until it is whole: files/ and unfinished parts/
    STORE/org--name/COMMIT-VARIANT.lease          who fetches it

The variant stands for the hub, and for which files of the commit are wanted. A pod's own directory holds
links to the folder of its commit. So pods of several models share a store, and a branch that moves makes a
new folder and changes none that is in use.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_runtime import volume
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.listing import Listing
from rerank_runtime.status import Source

_SOURCE = "source.json"
# Raised when more files are selected than before: a pinned commit is not looked up again at the hub, and its
# folder would lack them.
_SELECTION = 2


@dataclass(frozen=True)
class WeightsFolder:
    """The place of one commit.

    Args:
        path: STORE/org--name/COMMIT-VARIANT.
    """

    path: Path

    @classmethod
    def of(
        cls, store: Path, repo: str, commit: str, *, hub: str, file: str | None, python: bool
    ) -> WeightsFolder:
        """The folder of a repository's commit in a store.

        Args:
            store: The store.
            repo: org/name.
            commit: 40 hex digits.
            hub: Address of the hub: one does not vouch for what another one says.
            file: The pattern for the one weights file that is wanted, if there is one.
            python: Whether Python files are wanted.
        """
        variant = hashlib.sha256(json.dumps([_SELECTION, hub, file, python]).encode()).hexdigest()[:8]
        return cls(store / repo.replace("/", "--") / f"{commit}-{variant}")

    @property
    def lease(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lease")

    @property
    def staging(self) -> Path:
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def parts(self) -> Path:
        """Unfinished files."""
        return self.staging / "parts"

    @property
    def arriving(self) -> Path:
        """Files that are whole, of a commit that is not."""
        return self.staging / "files"

    def sizes(self) -> dict[str, int] | None:
        """The files' sizes in bytes if all of them are there and that long, else None."""
        try:
            listed = json.loads((self.path / _SOURCE).read_bytes())["files"]
            sizes = {str(name): int(entry["size"]) for name, entry in listed.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return sizes if all(_has(self.path / "model" / name, size) for name, size in sizes.items()) else None

    def source(self) -> Source | None:
        """Where the files came from, if they are there."""
        return Source.read(self.path / _SOURCE)

    def prepare(self, listing: Listing) -> None:
        """Make the staging directory ready to go on in; a folder that was damaged is taken back into it.

        Raises:
            OSError: The volume cannot hold it.
        """
        if self.path.exists() and self.sizes() is None:
            if self.staging.exists():
                shutil.rmtree(self.staging)
            self.path.replace(self.staging)
            if (self.staging / "model").exists():
                (self.staging / "model").replace(self.arriving)
        self.parts.mkdir(parents=True, exist_ok=True)
        self.arriving.mkdir(exist_ok=True)
        names = {file.name for file in listing.files}
        for path in self.arriving.rglob("*"):
            if path.is_file() and path.relative_to(self.arriving).as_posix() not in names:
                path.unlink()
        for file in listing.files:
            path = self.arriving / file.name
            if path.exists() and not _has(path, file.size):
                path.unlink()

    def bytes_there(self, listing: Listing) -> int:
        """Bytes of a listing's files that have arrived, as seen on the disk."""
        whole = sum(file.size for file in listing.files if _has(self.arriving / file.name, file.size))
        unfinished = 0
        try:
            for entry in os.scandir(self.parts):
                unfinished += entry.stat().st_size
        except FileNotFoundError:
            pass  # not begun, or finished between being listed and being looked at
        return min(whole + unfinished, listing.total)

    def finish(self, model: Path, about: dict[str, Any], hashes: Mapping[str, str]) -> None:
        """Give the folder its name, last and at once: from here on it is whole.

        Args:
            model: The directory in staging that becomes the model's.
            about: Where the files come from.
            hashes: Of the files that are as the hub has them, by name.

        Raises:
            OSError: The volume cannot hold it.
        """
        files: dict[str, dict[str, int | str]] = {}
        for path in sorted(model.rglob("*")):
            name = path.relative_to(model).as_posix()
            if path.is_file():
                files[name] = {"size": path.stat().st_size}
                files[name] |= {"hash": hashes[name]} if name in hashes else {}
        if model != self.staging / "model":
            model.replace(self.staging / "model")
        for rest in (self.parts, self.arriving):
            shutil.rmtree(rest, ignore_errors=True)
        volume.write_whole(self.staging / _SOURCE, json.dumps(about | {"files": files}, indent=1).encode())
        if self.path.exists():
            # Another pod was as fast; its folder holds the same.
            shutil.rmtree(self.staging)
            return
        self.staging.replace(self.path)
        volume.sync_directory(self.path.parent)

    def link(self, directory: Path) -> None:
        """Let DIR/model and DIR/source.json be this folder's.

        Raises:
            OSError: The volume cannot hold it.
            Failure: `InvalidSource` where something of somebody else's is in the way.
        """
        for name in ("model", _SOURCE):
            place = directory / name
            if place.is_dir() and not place.is_symlink():
                raise Failure(
                    Reason.INVALID_SOURCE,
                    f"{place} is there already and is no link: choose another directory.",
                )
            target = os.path.relpath(self.path / name, directory) if _inside(self.path, directory) else None
            temporary = directory / f".{name}.{os.getpid()}.link"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target or self.path.absolute() / name)
            temporary.replace(place)

    def remove_others(self) -> None:
        """Remove every other folder of the store: for a store that nobody else uses."""
        for repo in self.path.parent.parent.iterdir():
            for path in repo.iterdir():
                if path != self.path:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _inside(path: Path, directory: Path) -> bool:
    return path.absolute().is_relative_to(directory.absolute())
