"""A new version of the gateway under a steady stream of requests."""

import json

import pytest

from tests.cluster.harness.cluster import SYSTEM, Cluster
from tests.cluster.harness.fixtures import Tutorial
from tests.cluster.harness.gateway import Gateway, bearer, listing, question
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.objects import api_key
from tests.cluster.harness.stream import SteadyStream
from tests.cluster.harness.waiting import wait_for


def test_a_rolling_update_of_the_gateway_fails_no_request_and_loses_no_usage(
    cluster: Cluster, gateway: Gateway, tutorial: Tutorial, request: pytest.FixtureRequest
) -> None:
    cluster.wait_ready("minilm", "default")
    cluster.kubectl.apply(api_key("counted", "default"))
    key = cluster.wait_key_ready("counted", "default")
    wait_for(
        "every replica takes the key",
        lambda: all(listing(replica, key).status == 200 for replica in gateway.replicas),
        seconds=10,
        every=0.1,
    )
    before = {address.host for address in gateway.replicas}
    stream = SteadyStream(
        gateway.service,
        "/v1/rerank",
        headers={**bearer(key), **JSON_BODY},
        body=json.dumps(question("minilm")).encode(),
    )
    with stream:
        deployment = "deployment/rerank-gateway"
        cluster.kubectl("rollout", "restart", deployment, f"--namespace={SYSTEM}")
        cluster.kubectl(
            "rollout", "status", deployment, f"--namespace={SYSTEM}", "--timeout=180s", seconds=200
        )

        def replaced() -> bool:
            pods = cluster.api.list("pods", SYSTEM, labels="app.kubernetes.io/name=rerank-gateway")
            return len(pods) == 2 and not {pod["status"].get("podIP") for pod in pods} & before

        wait_for("the old replicas are gone", replaced, seconds=180, story=cluster.story(SYSTEM))
        enough = stream.answered + 20
        wait_for(
            "the new replicas answer", lambda: stream.answered >= enough, seconds=60, story=stream.report
        )
    assert not stream.failures, stream.report()

    def counted() -> int:
        found = cluster.api.get("apikeys", "counted", "default")
        usage = found["status"].get("usage", {}) if found else {}
        return int(usage.get("requests", 0))

    # A key is written once a minute. What the next tests need starts meanwhile.
    request.getfixturevalue("overlap_applied")
    wait_for(
        f"all {stream.answered} answers are counted, by four gateways",
        lambda: counted() >= stream.answered,
        seconds=120,
        story=cluster.story("default"),
    )
    assert counted() == stream.answered
