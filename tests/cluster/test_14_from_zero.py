"""A model that nobody asks for is stopped, and the next request is held until a replica serves it."""

import json

from tests.cluster.harness.cluster import START_SECONDS, Cluster, events_about
from tests.cluster.harness.fixtures import Release, Served
from tests.cluster.harness.gateway import Gateway, assert_panda_first, bearer, question
from tests.cluster.harness.http import JSON_BODY, send
from tests.cluster.harness.objects import phase
from tests.cluster.harness.waiting import wait_for

GONE_SECONDS = 180.0


def test_a_request_is_held_until_the_model_is_back(
    cluster: Cluster, release: Release, gateway: Gateway, overlap: Served
) -> None:
    seconds = int(START_SECONDS)
    release.upgrade(f"gateway.holdSeconds={seconds}", f"gateway.requestTimeoutSeconds={seconds}")
    name, namespace = overlap.name, overlap.namespace
    cluster.wait_ready(name, namespace)
    scaling = {"minReplicas": 0, "maxReplicas": 1, "idleSecondsToZero": 5}
    cluster.kubectl.patch("md", name, namespace, {"spec": {"autoscaling": scaling}})

    def stopped() -> bool:
        idle = phase(cluster.model(name, namespace)) == "Idle"
        return idle and not cluster.pods_of(name, namespace)

    story = cluster.story(namespace)
    what = "nobody asks, and no pod is left"
    wait_for(what, stopped, seconds=GONE_SECONDS, every=1, story=story)

    answer = send(
        gateway.service,
        "POST",
        "/v1/rerank",
        headers={**bearer(overlap.key), **JSON_BODY},
        body=json.dumps(question(name)).encode(),
        seconds=START_SECONDS,
    )
    assert_panda_first(answer)
    told = {event["reason"] for event in events_about(cluster, "ModelDeployment", name, namespace)}
    assert {"ScaledDown", "ScaledUp"} <= told
    cluster.kubectl.delete("md", name, namespace)
    release.upgrade()
