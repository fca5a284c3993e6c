"""What is asked of a hub: which files a commit has, and their bytes. All of it through huggingface_hub.

Only listing, addresses, headers and errors are the client's; the bytes are read here, because its own
downloads begin at zero again after a restart and believe what arrives (huggingface_hub 2.4, file_download.py:
`_download_to_tmp_and_move`).

Imported after `configure`: the client reads its environment when it is imported.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.listing import COMMIT, Listing, RemoteFile
from rerank_runtime.patience import HubError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def configure(home: Path) -> None:
    """Set up huggingface_hub's environment.

    Args:
        home: Where the client may write, should it want to.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    # Xet is a second protocol with hosts of its own, which mirrors and proxies of a hub do not carry.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ["HF_HOME"] = str(home)
    os.environ.pop("HF_HUB_OFFLINE", None)


@dataclass(frozen=True)
class Hub:
    """One repository on a hub.

    Args:
        address: The hub's, without a slash at the end.
        repo: org/name.
        token: Never shown.
        timeout: Seconds for a connection and for each read.
    """

    address: str
    repo: str
    token: str | None = field(default=None, repr=False)
    timeout: float = 10.0

    def listing(self, revision: str, choose: Callable[[Iterable[str]], Iterable[str]]) -> Listing:
        """The commit that a revision stands for now, and those of its files that are needed.

        Args:
            revision: Branch, tag or commit.
            choose: Which of all names are needed.

        Raises:
            HubError: The hub cannot or does not want to say.
            Failure: What it says cannot be fetched.
        """
        from huggingface_hub import HfApi  # noqa: PLC0415 - after its environment is set

        with self._explained(revision):
            # token=False: an absent token must not be looked for in files of the image.
            info = HfApi(endpoint=self.address, token=self.token or False).model_info(
                self.repo, revision=revision, files_metadata=True, timeout=self.timeout
            )
            siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
            commit = str(info.sha)
        if not COMMIT.fullmatch(commit):
            raise Failure(
                Reason.INVALID_SOURCE, f"The hub {self.address} does not say which commit {revision} is."
            )
        return Listing(commit, tuple(self._remote_file(commit, siblings[name]) for name in choose(siblings)))

    def chunks(self, commit: str, file: RemoteFile, start: int) -> Iterator[tuple[int, bytes]]:
        """The bytes of a file, each piece with its position.

        Args:
            commit: The commit.
            file: The file.
            start: Position of the first byte wanted. A hub that knows no ranges begins at 0 all the same;
                one that has nothing from there on gives an empty piece at 0.

        Raises:
            HubError: The bytes do not come, or are of a file that is not this one.
        """
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 - after its environment is set

        client = _client()
        url = hf_hub_url(self.repo, file.name, revision=commit, endpoint=self.address)
        headers = client.build_hf_headers(token=self.token or False) | {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with (
            self._explained(commit),
            client.get_session().stream(
                "GET", url, headers=headers, timeout=self.timeout, follow_redirects=True
            ) as response,
        ):
            if response.status_code == 416:
                # There is nothing from there on: another file than ours, or a hub that counts wrong.
                yield 0, b""
                return
            client.hf_raise_for_status(response)
            position, size = _extent(response)
            if size is not None and size != file.size:
                raise HubError(_other_size(file, size))
            # Pieces as they come: collecting them into larger ones would wait for a hub that drips.
            for piece in response.iter_bytes():
                yield position, piece
                position += len(piece)

    def _remote_file(self, commit: str, sibling: RepoSibling) -> RemoteFile:
        oid = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        size = sibling.size
        if not oid or size is None:
            # Some mirrors list names alone, and tell the rest with the file itself.
            oid, size = self._head(commit, sibling.rfilename)
        try:
            return RemoteFile(sibling.rfilename, int(size), oid)
        except (TypeError, ValueError) as error:
            raise Failure(
                Reason.INVALID_SOURCE,
                f"The hub {self.address} does not say what {sibling.rfilename} must hold ({error}): without "
                "a hash and a size its files cannot be checked. Choose a hub or mirror that tells them.",
            ) from error

    def _head(self, commit: str, name: str) -> tuple[str, int]:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - as above

        with self._explained(commit):
            url = hf_hub_url(self.repo, name, revision=commit, endpoint=self.address)
            told = get_hf_file_metadata(
                url, token=self.token or False, timeout=self.timeout, endpoint=self.address
            )
        return told.etag or "", -1 if told.size is None else told.size

    @contextmanager
    def _explained(self, revision: str) -> Iterator[None]:
        from rerank_runtime import hub_errors  # noqa: PLC0415 - imports huggingface_hub

        try:
            yield
        except hub_errors.RAISED as error:
            raise hub_errors.explain(
                error,
                repo=self.repo,
                revision=revision,
                hub=self.address,
                has_token=self.token is not None,
            ) from error


def _client() -> Any:
    """The client's own parts. Its version 2 exports them lazily, which types do not show."""
    return importlib.import_module("huggingface_hub.utils")


def _extent(response: Any) -> tuple[int, int | None]:
    """Position of an answer's first byte and the size of the whole file, if it says."""
    if response.status_code == 206:
        told = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if told is None:
            raise ValueError(f"no usable Content-Range: {response.headers.get('Content-Range')!r}")
        return int(told[1]), None if told[2] == "*" else int(told[2])
    if response.status_code != 200:
        raise ValueError(f"status {response.status_code} instead of a file")
    length = response.headers.get("Content-Length", "")
    compressed = response.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdigit() and not compressed else None


def _other_size(file: RemoteFile, size: int) -> Failure:
    return Failure(
        Reason.WEIGHTS_TRUNCATED,
        f"{file.name} arrived with {size} bytes where the hub lists {file.size}.",
        retriable=True,
    )
