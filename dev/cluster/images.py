"""The product's images: what each is made from, what it is called, and when it must be made again.

All images carry one tag, which changes with the content of any of them: `helm upgrade` with that
tag rolls what changed. Work is done per image: one whose own inputs did not change is not built.
"""

import hashlib
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.dockerfile import Inputs, inputs
from dev.cluster.errors import ClusterError

REGISTRY = "docker.io/library/"
"""What containerd puts before a name without a registry, such as the chart's `rerank-operator:TAG`."""


@dataclass(frozen=True)
class Product:
    """One image of the product: a target of the Dockerfile and the name that pods use."""

    target: str
    repository: str
    tag_suffix: str = ""

    def reference(self, tag: str) -> str:
        """Return its name with the tag, without a registry."""
        return f"{self.repository}:{tag}{self.tag_suffix}"


PRODUCTS = (
    Product("operator", "rerank-operator"),
    Product("gateway", "rerank-gateway"),
    Product("demo-hub", "rerank-demo-hub"),
    Product("runtime-cpu", "rerank-runtime", "-cpu"),
)
"""What the demo and the tests run. The GPU runtime is the same code on vLLM's own image."""


def product(target: str) -> Product:
    """Return the product of a target.

    Raises:
        ClusterError: nothing is built from a target of that name here.
    """
    for one in PRODUCTS:
        if one.target == target:
            return one
    raise ClusterError(f"no image {target}; there are {', '.join(one.target for one in PRODUCTS)}")


def content_key(root: Path, made_from: Inputs, base: str) -> str:
    """Return a name for what an image is made from.

    Args:
        root: the build context.
        made_from: the instructions and the context's paths.
        base: the base image's own key.
    """
    digest = hashlib.sha256("\n".join([base, *made_from.instructions]).encode())
    for path in context_files(root, made_from.sources):
        executable = os.access(path, os.X_OK)
        digest.update(f"\n{path.relative_to(root)} {executable} ".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def context_files(root: Path, sources: Iterable[str]) -> list[Path]:
    """Return the files below the sources, without those that `dockerignore` leaves out.

    Raises:
        ClusterError: a source does not exist.
    """
    found: list[Path] = []
    for source in sources:
        path = (root / source).resolve()
        if not path.exists():
            raise ClusterError(f"the Dockerfile copies {source}, which does not exist")
        below = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
        found += (file for file in below if not _ignored(file.relative_to(root.resolve())))
    return sorted(set(found))


def _ignored(path: Path) -> bool:
    if path.suffix == ".pyc":
        return True
    return any(part == "__pycache__" or (part[0] == "." and part.endswith("_cache")) for part in path.parts)


def content_keys(root: Path, base: str) -> dict[str, str]:
    """Return the key of every product's image by target.

    Args:
        root: the repository.
        base: the base image's own key.
    """
    return {one.target: stage_key(root, one.target, base) for one in PRODUCTS}


def stage_key(root: Path, stage: str, base: str) -> str:
    """Return the key of one stage of the repository's Dockerfile; see `content_key`."""
    return content_key(root, inputs((root / "Dockerfile").read_text(), stage), base)


def tag(root: Path, keys: dict[str, str]) -> str:
    """Return the tag of all images: the version, and a hash of everything that they are made from.

    Args:
        root: the repository.
        keys: every image's key by target.
    """
    together = hashlib.sha256("\n".join(f"{name} {key}" for name, key in sorted(keys.items())).encode())
    return f"{version(root)}-{together.hexdigest()[:12]}"


def version(root: Path) -> str:
    """Return the distribution's version, which is also the tag that plain manifests name."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
