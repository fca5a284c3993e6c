"""The life of one model's replicas: to two, replaced one by one under load, to zero, and back to one."""

import json

import pytest

from rerank_api import names
from tests.cluster.harness.cluster import START_SECONDS, Cluster
from tests.cluster.harness.fixtures import Tutorial
from tests.cluster.harness.gateway import Gateway, ask, assert_panda_first, bearer, question
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.objects import pod_is_ready
from tests.cluster.harness.stream import SteadyStream
from tests.cluster.harness.waiting import wait_for

MODEL, NAMESPACE = "minilm", "default"
# preStop waits for requests in flight; an idle pod goes at once.
GONE_SECONDS = 180.0


def scale(cluster: Cluster, replicas: int) -> None:
    """As a user does."""
    cluster.kubectl("scale", "md", MODEL, f"--namespace={NAMESPACE}", f"--replicas={replicas}")


def wait_serving(cluster: Cluster, replicas: int) -> None:
    """Wait until so many pods, and no others, are endpoints and stand in the status."""

    def settled() -> bool:
        addresses = cluster.ready_endpoints_of(MODEL, NAMESPACE)
        pods = {pod["status"]["podIP"] for pod in cluster.ready_pods_of(MODEL, NAMESPACE)}
        found = cluster.model(MODEL, NAMESPACE)
        shown = ((found or {}).get("status") or {}).get("ready")
        return addresses == pods and (len(pods), shown) == (replicas, f"{replicas}/{replicas}")

    wait_for(f"{replicas} replicas serve", settled, seconds=START_SECONDS, story=cluster.story(NAMESPACE))


@pytest.fixture(scope="module")
def two_replicas(cluster: Cluster, tutorial: Tutorial) -> None:
    """The example's model, scaled to two."""
    scale(cluster, 2)
    wait_serving(cluster, 2)


def test_scaled_to_two(cluster: Cluster, gateway: Gateway, tutorial: Tutorial, two_replicas: None) -> None:
    """Both are endpoints, both took the commit that the first one had resolved, and the model answers."""
    found = cluster.model(MODEL, NAMESPACE)
    assert found is not None
    assert found["status"]["replicas"] == 2
    pin = cluster.api.get("configmaps", names.child_name(MODEL), NAMESPACE)
    assert pin is not None
    assert list(pin["data"].values()) == [found["status"]["model"]["revision"]]
    assert_panda_first(ask(gateway.service, tutorial.key, question(MODEL)))


def test_a_rolling_update_fails_no_request(
    cluster: Cluster, gateway: Gateway, tutorial: Tutorial, two_replicas: None
) -> None:
    before = {pod["metadata"]["name"] for pod in cluster.ready_pods_of(MODEL, NAMESPACE)}
    stream = SteadyStream(
        gateway.service,
        "/v1/rerank",
        headers={**bearer(tutorial.key), **JSON_BODY},
        body=json.dumps(question(MODEL)).encode(),
    )
    with stream:
        patch = {"spec": {"resources": {"memory": "3584Mi"}}}
        cluster.kubectl.patch("md", MODEL, NAMESPACE, patch)

        def replaced() -> bool:
            pods = cluster.pods_of(MODEL, NAMESPACE)
            fresh = [pod for pod in pods if pod["metadata"]["name"] not in before]
            return len(pods) == 2 and len(fresh) == 2 and all(pod_is_ready(pod) for pod in fresh)

        what = "both replicas are replaced and the old ones gone"
        wait_for(what, replaced, seconds=2 * START_SECONDS, story=cluster.story(NAMESPACE))
        wait_serving(cluster, 2)
        enough = stream.answered + 20
        wait_for(
            "the new replicas answer", lambda: stream.answered >= enough, seconds=60, story=stream.report
        )
    assert not stream.failures, stream.report()


def test_scaled_to_zero_and_back(
    cluster: Cluster, gateway: Gateway, tutorial: Tutorial, two_replicas: None
) -> None:
    scale(cluster, 0)
    wait_for(
        "no pod is left",
        lambda: not cluster.pods_of(MODEL, NAMESPACE),
        seconds=GONE_SECONDS,
        story=cluster.story(NAMESPACE),
    )
    wait_serving(cluster, 0)
    [row] = cluster.kubectl.table("md", MODEL, f"--namespace={NAMESPACE}")
    assert (row["READY"], row["PHASE"]) == ("0/0", "Idle")
    answer = ask(gateway.service, tutorial.key, question(MODEL))
    assert answer.status == 503, str(answer)
    assert int(answer.headers["retry-after"]) > 0

    # As the example's file has it: who applies that again finds nothing to change, and starts nothing.
    cluster.kubectl.patch("md", MODEL, NAMESPACE, {"spec": {"resources": {"memory": "4Gi"}}})
    scale(cluster, 1)
    wait_serving(cluster, 1)
    cluster.wait_ready(MODEL, NAMESPACE)
    for address in gateway.replicas:
        assert_panda_first(ask(address, tutorial.key, question(MODEL)))
