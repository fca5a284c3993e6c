"""The source without a cluster: a folder of YAML files, objects as `kubectl get -o yaml` prints them.

For tests, benchmarks and a gateway in front of models that run elsewhere. EndpointSlices may name loopback
addresses here. Changed files are read again; a file that does not parse leaves everything as it was.
"""

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import structlog
import yaml

from rerank_gateway import records
from rerank_gateway.records import Kind, Record
from rerank_gateway.state import State

_POLL_SECONDS: Final = 0.25
_SUFFIXES: Final = (".yaml", ".yml", ".json")

_log = structlog.get_logger("rerank_gateway.folder")


class InvalidFolderError(Exception):
    """The folder cannot be used; the message names the file and what is wrong with it."""


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: a timestamp is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}

_Stamps = dict[Path, tuple[int, int]]


class Folder:
    """A Source. The first reading happens in `load`, so that a mistake ends the program with a reason."""

    def __init__(self, path: Path, state: State) -> None:
        self._path = path
        self._state = state
        self._stamps: _Stamps = {}
        self._up_to_date = False
        self._read_at: float | None = None

    def load(self) -> None:
        """Read everything.

        Raises:
            InvalidFolderError: a file or an object in it cannot be used. The state is as before.
        """
        self._up_to_date = False
        self._stamps = self._look()
        found: dict[Kind, list[Record]] = {kind: [] for kind in Kind}
        for path in sorted(self._stamps):
            for kind, record in _read(path):
                found[kind].append(record)
        for kind, objects in found.items():
            self._state.replace(kind, objects)
        self._up_to_date = True
        self._read_at = time.monotonic()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                if self._look() != self._stamps:
                    self.load()
                    _log.info("folder_read", **{kind.value: self._state.count(kind) for kind in Kind})
                elif self._up_to_date:
                    self._read_at = time.monotonic()
            except InvalidFolderError as error:
                _log.error("folder_not_read", reason=str(error))

    def unsynced(self) -> list[str]:
        return [] if self._read_at is not None else [str(self._path)]

    def ages(self) -> dict[str, float]:
        return {} if self._read_at is None else {"folder": time.monotonic() - self._read_at}

    def keys_age(self, namespace: str | None) -> float:  # noqa: ARG002 - the folder holds all of them
        return math.inf if self._read_at is None else time.monotonic() - self._read_at

    def _look(self) -> _Stamps:
        try:
            files = [path for path in self._path.iterdir() if path.suffix in _SUFFIXES]
            stats = {path: path.stat() for path in files}
        except OSError as error:
            raise InvalidFolderError(f"{self._path}: {error.strerror}") from error
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def _read(path: Path) -> Iterator[tuple[Kind, Record]]:
    try:
        documents = list(yaml.load_all(path.read_bytes(), Loader=_Loader))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidFolderError(f"{path}: {error}") from error
    for body in _objects(documents):
        try:
            kind = records.kind_of(body)
        except (KeyError, TypeError, AttributeError, ValueError):
            known = ", ".join(kind.value for kind in Kind if kind is not Kind.PEERS)
            raise InvalidFolderError(f"{path}: every object's kind must be one of {known}") from None
        try:
            yield kind, records.parse(kind, body)
        except ValueError as error:
            raise InvalidFolderError(f"{path}: {error}") from error


def _objects(documents: list[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("items"), list):
            yield from document["items"]
        elif document is not None:
            yield document
