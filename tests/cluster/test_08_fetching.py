"""What stands in the way of fetching: a volume that is or gets full, a hub that is down. All are told and
heal.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.described import wait_described
from tests.cluster.harness.objects import REFUSED, condition, is_true, model
from tests.cluster.harness.waiting import wait_for

NAMESPACE, VOLUME = "rerank-test-storage", "rerank-test-store"
REPO = "sentence-transformers/all-MiniLM-L6-v2"
# Its weights take 87 MiB.
TOO_SMALL, LARGE_ENOUGH = "32m", "256m"
# The kubelet tries again 10, 20, 40 s after each failure.
RETRY_SECONDS = 120.0
HUB = "demo-hub"
# The one file takes a minute so, the other ten seconds.
SLOW = f"{REPO}=1500000,demo/word-overlap=1500000"


@pytest.fixture(scope="module")
def store(
    cluster: Cluster, release: object, namespace_of_module: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A small file system of the node's, as a volume of the namespace's."""
    path = tmp_path_factory.mktemp("store")
    path.parent.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TOO_SMALL},mode=0777", VOLUME, path], check=True)
    shared = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": VOLUME,
    }
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": VOLUME},
        "spec": {
            **shared,
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(path), "type": "Directory"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "store", "namespace": namespace_of_module},
        "spec": {**shared, "volumeName": VOLUME, "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.kubectl("delete", "pv", VOLUME, "--ignore-not-found")
    cluster.kubectl.apply(volume, claim)
    try:
        yield path
    finally:
        cluster.kubectl("delete", "md", "--all", f"--namespace={NAMESPACE}")
        wait_for("no pod uses it", lambda: not cluster.api.list("pods", NAMESPACE), seconds=90)
        cluster.kubectl("delete", "pv", VOLUME, "--wait=false")
        subprocess.run(["umount", path], check=True)


def test_a_volume_that_is_full_is_told_and_heals(cluster: Cluster, store: Path) -> None:
    storage = {"persistentVolumeClaim": {"claimName": "store"}}
    both = [model(name, NAMESPACE, REPO, resources=REFUSED, storage=storage) for name in ("one", "two")]
    cluster.kubectl.apply(*both)
    for name in ("one", "two"):
        ready = cluster.wait_reason(name, NAMESPACE, "DiskFull", seconds=60)
        assert "GiB" in ready["message"]
        wait_described(cluster, name, NAMESPACE, ready)
        assert condition(cluster.model(name, NAMESPACE), "Downloaded")["reason"] == "DiskFull"

    subprocess.run(["mount", "-o", f"remount,size={LARGE_ENOUGH}", store], check=True)

    def downloaded() -> bool:
        return all(is_true(cluster.model(name, NAMESPACE), "Downloaded") for name in ("one", "two"))

    wait_for("both are downloaded", downloaded, seconds=RETRY_SECONDS, story=cluster.story(NAMESPACE))


def test_both_models_share_one_folder(cluster: Cluster, store: Path) -> None:
    [folder] = [path for path in store.glob("sentence-transformers--all-MiniLM-L6-v2/*") if path.is_dir()]
    assert (folder / "model" / "model.safetensors").stat().st_size > 80_000_000
    assert not list(store.glob("*/*.partial"))
    pods = cluster.api.list("pods", NAMESPACE)
    assert {pod["metadata"]["labels"]["rerank.dev/model"] for pod in pods} == {"one", "two"}


@pytest.fixture(scope="module")
def slow_hub(cluster: Cluster, release: object) -> Iterator[str]:
    """Downloads take so long that something can happen in the middle of them. Yields the usual pace."""
    usual = _pace(cluster, SLOW)
    yield usual
    _pace(cluster, usual)
    _scale_hub(cluster, 1)


def test_a_volume_that_fills_up_in_the_middle_of_a_file_is_told(
    cluster: Cluster, store: Path, slow_hub: str
) -> None:
    """There was room when it began. Somebody else takes it, and gives it back."""
    storage = {"persistentVolumeClaim": {"claimName": "store"}}
    cluster.kubectl.apply(
        model("filling", NAMESPACE, "demo/word-overlap", resources=REFUSED, storage=storage)
    )
    _wait_partly(cluster, "filling", 1_000_000)
    ballast = store / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(2**20)):
            pass
    ready = cluster.wait_reason("filling", NAMESPACE, "DiskFull", seconds=60)
    assert "What has arrived is kept" in ready["message"]
    wait_described(cluster, "filling", NAMESPACE, ready)
    ballast.unlink()


def test_a_hub_that_goes_away_in_the_middle_of_a_file_is_told(
    cluster: Cluster, namespace_of_module: str, slow_hub: str
) -> None:
    """One model has part of its file by then, another comes while the hub is down."""
    cluster.kubectl.apply(model("midway", NAMESPACE, REPO, resources=REFUSED))
    _wait_partly(cluster, "midway", 5_000_000)
    _scale_hub(cluster, 0)
    wait_for("the hub is down", lambda: not cluster.api.list("pods", HUB), seconds=60)
    cluster.kubectl.apply(model("hubless", NAMESPACE, REPO, resources=REFUSED))
    for name in ("midway", "hubless"):
        ready = cluster.wait_reason(name, NAMESPACE, "HubUnreachable", seconds=90)
        wait_described(cluster, name, NAMESPACE, ready)
        downloaded = condition(cluster.model(name, NAMESPACE), "Downloaded")
        assert (downloaded["status"], downloaded["reason"]) == ("False", "HubUnreachable")
        assert "demo-hub" in downloaded["message"]


def test_what_was_cut_off_goes_on_when_hub_and_volume_are_back(
    cluster: Cluster, store: Path, slow_hub: str
) -> None:
    _pace(cluster, slow_hub)
    _scale_hub(cluster, 1)
    cut = ("filling", "midway", "hubless")

    def healed() -> bool:
        return all(is_true(cluster.model(name, NAMESPACE), "Downloaded") for name in cut)

    wait_for("all are downloaded", healed, seconds=RETRY_SECONDS, story=cluster.story(NAMESPACE))
    # What the new hub was asked for: a whole file by one, the rest of it by the other.
    asked = cluster.kubectl("logs", "deployment/demo-hub", f"--namespace={HUB}").splitlines()
    answers = [answer for answer in map(json.loads, asked) if answer["path"].endswith("/model.safetensors")]
    sent = [
        answer["status"]
        for answer in answers
        if answer["method"] == "GET" and answer["path"].startswith(f"/_lfs/{REPO}/")
    ]
    assert set(sent) == {200, 206}


def _wait_partly(cluster: Cluster, name: str, size: int) -> None:
    def partly() -> bool:
        found = cluster.model(name, NAMESPACE) or {}
        return int(((found.get("status") or {}).get("download") or {}).get("bytes", 0)) > size

    wait_for(f"a part of {name} is there", partly, seconds=60, story=cluster.story(NAMESPACE))


def _scale_hub(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl("scale", "deployment/demo-hub", f"--namespace={HUB}", f"--replicas={replicas}")


def _pace(cluster: Cluster, bytes_per_second: str) -> str:
    """Let the hub send this fast; returns how fast it did."""
    found = cluster.api.get("deployments", "demo-hub", HUB)
    assert found, "there is no demo hub"
    [variable] = found["spec"]["template"]["spec"]["containers"][0]["env"]
    setting = f"{variable['name']}={bytes_per_second}"
    cluster.kubectl("set", "env", "deployment/demo-hub", f"--namespace={HUB}", setting)
    if found["spec"]["replicas"]:
        cluster.kubectl("rollout", "status", "deployment/demo-hub", f"--namespace={HUB}", "--timeout=60s")
    return str(variable["value"])
