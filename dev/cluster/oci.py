"""OCI images as blobs by digest (image-spec 1.0), and handing them to containerd through a pipe.

Only blobs that containerd lacks are sent: after a change of our own code that is one small layer,
not the gigabytes below it.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.cluster.commands import run
from dev.cluster.containerd import Containerd
from dev.cluster.errors import ClusterError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
PIECE = 1 << 20
"""Bytes written at once: tarfile's own 10 KiB would cost a system call each."""
LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'


@dataclass(frozen=True)
class Blob:
    """Content by its digest, in memory or in a file."""

    media_type: str
    digest: str
    size: int
    content: bytes | Path

    @classmethod
    def of(cls, media_type: str, content: bytes) -> "Blob":
        return cls(media_type, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), content)

    @classmethod
    def of_json(cls, media_type: str, document: dict[str, Any]) -> "Blob":
        return cls.of(media_type, json.dumps(document, sort_keys=True).encode())

    def descriptor(self) -> dict[str, Any]:
        """Return how a manifest or an index refers to it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Image:
    """A manifest and all that it refers to."""

    manifest: Blob
    blobs: tuple[Blob, ...]
    """The configuration and the layers."""


def program_image(name: str, program: bytes) -> Image:
    """Return an image of one static program, which is its entry point.

    Args:
        name: the program's file name, in the root folder.
        program: its content.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    layer = Blob.of(LAYER, buffer.getvalue())
    config = Blob.of_json(
        CONFIG,
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{name}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        },
    )
    return Image(manifest_of(config, (layer,)), (config, layer))


def manifest_of(config: Blob, layers: tuple[Blob, ...]) -> Blob:
    """Return the manifest that binds a configuration and its layers."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    return Blob.of_json(MANIFEST, document)


def read_layout(folder: Path, tag: str) -> Image:
    """Read one image of an OCI layout folder.

    Args:
        folder: holds `index.json` and `blobs/`.
        tag: the image's `org.opencontainers.image.ref.name`.

    Raises:
        ClusterError: the layout has no such image.
    """

    def blob(descriptor: dict[str, Any]) -> Blob:
        path = folder / "blobs" / descriptor["digest"].replace(":", "/", 1)
        return Blob(descriptor["mediaType"], descriptor["digest"], descriptor["size"], path)

    for descriptor in json.loads((folder / "index.json").read_text())["manifests"]:
        if descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            manifest = blob(descriptor)
            assert isinstance(manifest.content, Path)  # noqa: S101 - made two lines above
            document = json.loads(manifest.content.read_text())
            return Image(manifest, tuple(blob(part) for part in [document["config"], *document["layers"]]))
    raise ClusterError(f"no image {tag} in {folder}")


def load(containerd: Containerd, image: Image, image_name: str) -> int:
    """Give containerd an image under a name, sending only what it lacks.

    Args:
        containerd: a running one.
        image: what to give.
        image_name: the full name, such as `docker.io/library/rerank-operator:0.1.0`.

    Returns:
        The bytes sent.
    """
    have = set(run(containerd.ctr("content", "list", "--quiet")).split())
    missing = [blob for blob in image.blobs if blob.digest not in have]
    process = subprocess.Popen(
        containerd.ctr("images", "import", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101,PT018 - pipes were asked for
    try:
        with process.stdin, tarfile.open(fileobj=process.stdin, mode="w|", bufsize=PIECE) as archive:
            for name, content in archive_entries(image.manifest, missing, image_name):
                _add(archive, name, content)
    except BrokenPipeError:
        pass  # it said why on its output
    with process.stdout as output:
        said = output.read().decode(errors="replace")
    if process.wait() != 0:
        raise ClusterError(f"containerd did not take {image_name}: {said.strip()[-1000:]}")
    return sum(blob.size for blob in missing)


def archive_entries(manifest: Blob, blobs: list[Blob], image_name: str) -> Iterator[tuple[str, bytes | Path]]:
    """Yield the files of an OCI archive that names one image, in the order of the archive."""
    named = {**manifest.descriptor(), "annotations": {"io.containerd.image.name": image_name}}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
    yield "oci-layout", LAYOUT
    for blob in (*blobs, manifest):
        yield f"blobs/{blob.digest.replace(':', '/', 1)}", blob.content
    yield "index.json", json.dumps(index).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    entry = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
        return
    entry.size = content.stat().st_size
    with content.open("rb") as stream:
        archive.addfile(entry, stream)
