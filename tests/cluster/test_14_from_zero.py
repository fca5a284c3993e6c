"""A model that nobody asks for is stopped, and the next request is held until a replica serves it."""

import json

from tests.cluster.harness.cluster import START_SECONDS, Cluster, events_about
from tests.cluster.harness.fixtures import Release
from tests.cluster.harness.gateway import Gateway, assert_panda_first, bearer, question
from tests.cluster.harness.http import JSON_BODY, send
from tests.cluster.harness.objects import api_key, model, phase
from tests.cluster.harness.waiting import wait_for

NAMESPACE = "rerank-test-zero"
GONE_SECONDS = 180.0


def test_a_request_is_held_until_the_model_is_back(
    cluster: Cluster, release: Release, gateway: Gateway, namespace_of_module: str
) -> None:
    seconds = int(START_SECONDS)
    release.upgrade(f"gateway.holdSeconds={seconds}", f"gateway.requestTimeoutSeconds={seconds}")
    scaling = {"minReplicas": 0, "maxReplicas": 1, "idleSecondsToZero": 5}
    cluster.kubectl.apply(
        api_key("caller", NAMESPACE),
        model("sleeper", NAMESPACE, "demo/word-overlap", autoscaling=scaling),
    )
    key = cluster.wait_key_ready("caller", NAMESPACE)

    def stopped() -> bool:
        idle = phase(cluster.model("sleeper", NAMESPACE)) == "Idle"
        return idle and not cluster.pods_of("sleeper", NAMESPACE)

    story = cluster.story(NAMESPACE)
    what = "it has served, nobody asked, and no pod is left"
    wait_for(what, stopped, seconds=START_SECONDS + GONE_SECONDS, every=1, story=story)

    answer = send(
        gateway.service,
        "POST",
        "/v1/rerank",
        headers={**bearer(key), **JSON_BODY},
        body=json.dumps(question("sleeper")).encode(),
        seconds=START_SECONDS,
    )
    assert_panda_first(answer)
    told = {event["reason"] for event in events_about(cluster, "ModelDeployment", "sleeper", NAMESPACE)}
    assert {"ScaledDown", "ScaledUp"} <= told
    cluster.kubectl.delete("md", "sleeper", NAMESPACE)
    release.upgrade()
