"""A model is updated under load: with a GPU to spare no request fails, without one none waits for ever."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.harness.cluster import START_SECONDS, Cluster, events_about
from tests.cluster.harness.fixtures import Release
from tests.cluster.harness.gateway import Gateway, bearer, question
from tests.cluster.harness.gpus import set_gpus
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.objects import api_key, condition, model, pod_is_ready
from tests.cluster.harness.stream import SteadyStream
from tests.cluster.harness.waiting import wait_for

NAMESPACE, MODEL = "rerank-test-gpu-rollouts", "on-gpu"
# gateway.holdSeconds, and time for the answer to come through on a busy machine.
HELD_SECONDS = 30.0 + 10.0


@pytest.fixture(scope="module")
def key(cluster: Cluster, release: Release, namespace_of_module: str) -> Iterator[str]:
    """One replica on the node's only GPU, and a key for it."""
    set_gpus(1)
    resources = {"gpu": {"count": 1}, "cpu": "100m", "memory": "3328Mi"}
    cluster.kubectl.apply(
        api_key("caller", namespace_of_module),
        model(MODEL, namespace_of_module, "demo/word-overlap", resources=resources),
    )
    key = cluster.wait_key_ready("caller", namespace_of_module)
    cluster.wait_ready(MODEL, NAMESPACE)
    yield key
    cluster.kubectl.delete("md", MODEL, NAMESPACE)
    set_gpus(0)


def stream_of(gateway: Gateway, key: str) -> SteadyStream:
    headers = {**bearer(key), **JSON_BODY}
    return SteadyStream(
        gateway.service, "/v1/rerank", headers=headers, body=json.dumps(question(MODEL)).encode()
    )


def replace_all(cluster: Cluster, *, memory: str, replicas: int) -> None:
    """Another revision, until it alone serves and the old pods are gone."""
    before = {pod["metadata"]["uid"] for pod in cluster.pods_of(MODEL, NAMESPACE)}
    cluster.kubectl.patch("md", MODEL, NAMESPACE, {"spec": {"resources": {"memory": memory}}})

    def replaced() -> bool:
        pods = cluster.pods_of(MODEL, NAMESPACE)
        fresh = [pod for pod in pods if pod["metadata"]["uid"] not in before]
        return len(pods) == len(fresh) == replicas and all(map(pod_is_ready, fresh))

    wait_for("all replicas are new", replaced, seconds=2 * START_SECONDS, story=cluster.story(NAMESPACE))
    cluster.wait_ready(MODEL, NAMESPACE)


def test_on_the_only_gpu_requests_are_held_for_a_while_and_served_again(
    cluster: Cluster, gateway: Gateway, key: str
) -> None:
    with stream_of(gateway, key) as stream:
        replace_all(cluster, memory="3392Mi", replicas=1)
        enough = stream.answered + 20
        wait_for(
            "the new replica answers", lambda: stream.answered >= enough, seconds=60, story=stream.report
        )
    # While the one replica is away a request waits, and is then told when to come again: never cut.
    assert all("model_not_ready" in failure.cause for failure in stream.failures), stream.report()
    assert all(failure.took < HELD_SECONDS for failure in stream.failures), stream.report()
    events = events_about(cluster, "ModelDeployment", MODEL, NAMESPACE)
    assert "GpusInUse" in {event["reason"] for event in events if event["type"] == "Warning"}


def test_with_a_gpu_to_spare_no_request_fails(cluster: Cluster, gateway: Gateway, key: str) -> None:
    set_gpus(3)
    cluster.kubectl("scale", "md", MODEL, f"--namespace={NAMESPACE}", "--replicas=2")
    cluster.wait_ready(MODEL, NAMESPACE)
    with stream_of(gateway, key) as stream:
        replace_all(cluster, memory="3328Mi", replicas=2)
        enough = stream.answered + 20
        wait_for("the new ones answer", lambda: stream.answered >= enough, seconds=60, story=stream.report)
    assert not stream.failures, stream.report()
    assert condition(cluster.model(MODEL, NAMESPACE), "Progressing")["reason"] == "Complete"
