"""Images as blobs, and the archive that containerd reads."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from dev.cluster.errors import ClusterError
from dev.cluster.oci import Blob, archive_entries, manifest_of, program_image, read_layout


def test_a_blob_is_named_by_its_content() -> None:
    blob = Blob.of("text/plain", b"hello")
    assert blob.descriptor() == {
        "mediaType": "text/plain",
        "digest": "sha256:" + hashlib.sha256(b"hello").hexdigest(),
        "size": 5,
    }


def test_a_program_image_holds_the_program_and_runs_it_as_nobody() -> None:
    image = program_image("pause", b"\x7fELF")
    config_blob, layer = image.blobs
    assert isinstance(config_blob.content, bytes)
    config = json.loads(config_blob.content)
    assert config["config"] == {"Entrypoint": ["/pause"], "User": "65535:65535"}
    assert config["rootfs"]["diff_ids"] == [layer.digest]
    assert isinstance(layer.content, bytes)
    with tarfile.open(fileobj=io.BytesIO(layer.content)) as archive:
        entry = archive.getmember("pause")
        program = archive.extractfile(entry)
        assert program is not None
        assert (entry.mode, program.read()) == (0o755, b"\x7fELF")


def test_the_archive_names_the_image_and_sends_only_the_given_blobs() -> None:
    image = program_image("pause", b"\x7fELF")
    config, layer = image.blobs
    entries = dict(archive_entries(image.manifest, [layer], "docker.io/library/pause:1"))
    index = entries["index.json"]
    assert isinstance(index, bytes)
    named = json.loads(index)["manifests"][0]
    assert named["annotations"] == {"io.containerd.image.name": "docker.io/library/pause:1"}
    assert named["digest"] == image.manifest.digest
    assert f"blobs/{layer.digest.replace(':', '/')}" in entries
    assert f"blobs/{config.digest.replace(':', '/')}" not in entries


def test_a_layout_is_read_by_tag(tmp_path: Path) -> None:
    config, layer = Blob.of("config", b"{}"), Blob.of("layer", b"tar")
    manifest = manifest_of(config, (layer,))
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    assert isinstance(manifest.content, bytes)
    (blobs / manifest.digest.removeprefix("sha256:")).write_bytes(manifest.content)
    entry = {**manifest.descriptor(), "annotations": {"org.opencontainers.image.ref.name": "operator-1"}}
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [entry]}))
    image = read_layout(tmp_path, "operator-1")
    assert image.manifest.digest == manifest.digest
    assert [blob.digest for blob in image.blobs] == [config.digest, layer.digest]
    with pytest.raises(ClusterError, match="operator-2"):
        read_layout(tmp_path, "operator-2")
