"""Keeping the cache small: of each image only the newest few are kept, with the layers that they need."""

import json
from pathlib import Path
from typing import Any

from dev.cluster.commands import run, succeeds
from dev.cluster.containerd import Containerd
from dev.cluster.images import REGISTRY, Product

KEPT = 3
"""Generations of each image: the current one, and those that something may still run."""
REF_NAME = "org.opencontainers.image.ref.name"


def prune_layout(folder: Path) -> None:
    """Drop old images from an OCI layout folder, and every blob that no other image needs.

    Args:
        folder: holds `index.json`, whose order is that of the builds, and `blobs/`. Images are named
            `TARGET-KEY`.
    """
    index = json.loads((folder / "index.json").read_text())
    kept = newest(index["manifests"])
    if len(kept) == len(index["manifests"]):
        return
    needed: set[str] = set()
    for entry in kept:
        manifest = json.loads(_blob(folder, entry["digest"]).read_text())
        needed |= {entry["digest"], manifest["config"]["digest"]}
        needed |= {layer["digest"] for layer in manifest["layers"]}
    (folder / "index.json").write_text(json.dumps({**index, "manifests": kept}))
    for blob in (folder / "blobs" / "sha256").iterdir():
        if f"sha256:{blob.name}" not in needed:
            blob.unlink()


def newest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of an index that are among the newest of their target."""
    kept: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for entry in reversed(entries):
        target = entry.get("annotations", {}).get(REF_NAME, "").rpartition("-")[0]
        seen[target] = seen.get(target, 0) + 1
        if seen[target] <= KEPT:
            kept.append(entry)
    return kept[::-1]


def old_stages(images: list[dict[str, Any]], prefix: str) -> list[str]:
    """Return the names of buildah's images that are not among the newest of their stage.

    Args:
        images: what `buildah images --json` prints.
        prefix: what the names of stages' images begin with.
    """
    seen: dict[str, int] = {}
    old: list[str] = []
    for image in sorted(images, key=lambda image: -int(image["created"])):
        for name in image.get("names") or []:
            if not name.startswith(prefix):
                continue
            stage = name.rpartition(":")[0]
            seen[stage] = seen.get(stage, 0) + 1
            if seen[stage] > KEPT:
                old.append(name)
    return old


def prune_node(containerd: Containerd, products: tuple[Product, ...], history: Path, tag: str) -> None:
    """Drop the images of old tags from the node, except of those that a container still uses.

    Args:
        containerd: the node's.
        products: whose images.
        history: a file with the tags that were loaded, in their order; this call adds to it.
        tag: the tag loaded now.
    """
    known = json.loads(history.read_text()) if history.exists() else []
    tags = [*(other for other in known if other != tag), tag]
    present = containerd.images()
    used = run(containerd.ctr("containers", "list"))
    history.write_text(json.dumps([old for old in tags[:-KEPT] if old in used] + tags[-KEPT:]))
    for old in tags[:-KEPT]:
        if old in used:
            continue  # an installation of that tag may yet start pods of its other images
        for product in products:
            name = REGISTRY + product.reference(old)
            if name in present:
                succeeds(containerd.ctr("images", "remove", name))


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/", 1)
