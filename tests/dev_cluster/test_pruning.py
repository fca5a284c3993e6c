"""What is dropped from the cache, and what must stay."""

import json
from pathlib import Path

from dev.cluster.oci import Blob, manifest_of
from dev.cluster.pruning import KEPT, REF_NAME, old_stages, prune_layout


def put(folder: Path, blob: Blob) -> None:
    assert isinstance(blob.content, bytes)
    (folder / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")).write_bytes(blob.content)


def test_old_images_go_with_what_only_they_need(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    shared = Blob.of("layer", b"shared")
    put(tmp_path, shared)
    entries, own = [], []
    for number in range(KEPT + 2):
        config, layer = Blob.of("config", b"c%d" % number), Blob.of("layer", b"l%d" % number)
        manifest = manifest_of(config, (shared, layer))
        for blob in (config, layer, manifest):
            put(tmp_path, blob)
        own.append({config.digest, layer.digest, manifest.digest})
        entries.append({**manifest.descriptor(), "annotations": {REF_NAME: f"runtime-cpu-{number}"}})
    other = manifest_of(Blob.of("config", b"other"), (shared,))
    put(tmp_path, other)
    entries.insert(0, {**other.descriptor(), "annotations": {REF_NAME: "operator-0"}})
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))

    prune_layout(tmp_path)

    index = json.loads((tmp_path / "index.json").read_text())
    names = [entry["annotations"][REF_NAME] for entry in index["manifests"]]
    assert names == ["operator-0", "runtime-cpu-2", "runtime-cpu-3", "runtime-cpu-4"]
    left = {f"sha256:{path.name}" for path in (tmp_path / "blobs" / "sha256").iterdir()}
    assert left == {shared.digest, other.digest} | own[2] | own[3] | own[4]


def test_a_layout_with_few_images_is_left_alone(tmp_path: Path) -> None:
    text = json.dumps({"manifests": [{"digest": "sha256:absent", "annotations": {REF_NAME: "operator-0"}}]})
    (tmp_path / "index.json").write_text(text)
    prune_layout(tmp_path)
    assert (tmp_path / "index.json").read_text() == text


def test_the_newest_of_each_stage_stay_in_buildahs_storage() -> None:
    images = [
        {"names": [f"localhost/rerank-tools:{number}"], "created": number} for number in range(KEPT + 2)
    ]
    images += [{"names": None, "created": 99}, {"names": ["localhost/other:1"], "created": 1}]
    assert old_stages(images, "localhost/rerank-") == ["localhost/rerank-tools:1", "localhost/rerank-tools:0"]
