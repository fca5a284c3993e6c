"""Repositories on disk: `ROOT/org/name/repository.json`, and one folder for each commit.

Large files are listed as the real hub lists those in LFS: by their SHA-256, served from another path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Weights, whatever their size; the real hub decides by .gitattributes.
_LFS_SUFFIXES = (".safetensors", ".gguf")

Branches = dict[str, str]


@dataclass(frozen=True)
class File:
    """One file of a commit; `oid` is its SHA-256 in LFS, its git blob id otherwise."""

    name: str
    size: int
    oid: str
    lfs: bool


@dataclass(frozen=True)
class Repository:
    """A repository as it is served."""

    name: str
    gated: bool
    branches: Branches
    commits: dict[str, tuple[File, ...]]
    folder: Path

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch, or a commit itself, stands for."""
        if revision in self.commits:
            return revision
        return self.branches.get(revision)

    def file(self, commit: str, name: str) -> File | None:
        return next((file for file in self.commits[commit] if file.name == name), None)

    def path(self, commit: str, file: File) -> Path:
        return self.folder / commit / file.name


def write(
    root: Path, name: str, branches: Mapping[str, Mapping[str, bytes | Path]], *, gated: bool = False
) -> Branches:
    """Write a repository; a file given as a path is linked to, not copied."""
    folder = root / name
    commits: dict[str, list[dict[str, object]]] = {}
    tips: Branches = {}
    for branch, contents in branches.items():
        files = [_describe(path, _bytes(content)) for path, content in sorted(contents.items())]
        commit = hashlib.sha1(json.dumps([name, files]).encode(), usedforsecurity=False).hexdigest()
        tips[branch], commits[commit] = commit, files
        for path, content in contents.items():
            target = folder / commit / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                target.symlink_to(content.resolve())
            else:
                target.write_bytes(content)
    meta = {"gated": gated, "branches": tips, "commits": commits}
    (folder / "repository.json").write_text(json.dumps(meta, indent=1))
    return tips


def load(root: Path) -> dict[str, Repository]:
    """Every repository under a directory, by name."""
    found = {}
    for path in sorted(root.glob("*/*/repository.json")):
        meta = json.loads(path.read_bytes())
        name = path.parent.relative_to(root).as_posix()
        commits = {commit: tuple(File(**file) for file in files) for commit, files in meta["commits"].items()}
        found[name] = Repository(name, meta["gated"], meta["branches"], commits, path.parent)
    return found


def _bytes(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _describe(name: str, content: bytes) -> dict[str, object]:
    lfs = name.endswith(_LFS_SUFFIXES)
    if lfs:
        oid = hashlib.sha256(content).hexdigest()
    else:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return {"name": name, "size": len(content), "oid": oid, "lfs": lfs}
