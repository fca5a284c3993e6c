"""A new revision whose scores are wrong never takes over: the running one goes on serving, and says why."""

import json

from tests.cluster.harness.cluster import START_SECONDS, Cluster, events_about
from tests.cluster.harness.fixtures import Served
from tests.cluster.harness.gateway import Gateway, ask, assert_panda_first, bearer, question
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.objects import condition, is_true, phase
from tests.cluster.harness.stream import SteadyStream
from tests.cluster.harness.waiting import wait_for


def test_an_inverted_revision_does_not_replace_the_running_one(
    cluster: Cluster, gateway: Gateway, overlap: Served
) -> None:
    [running] = cluster.ready_pods_of(overlap.name, overlap.namespace)
    served = cluster.ready_endpoints_of(overlap.name, overlap.namespace)
    stream = SteadyStream(
        gateway.service,
        "/v1/rerank",
        headers={**bearer(overlap.key), **JSON_BODY},
        body=json.dumps(question(overlap.name)).encode(),
    )
    with stream:
        _revise(cluster, overlap, "inverted")

        def judged() -> bool:
            assert cluster.ready_endpoints_of(overlap.name, overlap.namespace) == served, (
                "another pod gets requests"
            )
            return (
                condition(cluster.model(overlap.name, overlap.namespace), "ScoringVerified").get("status")
                == "False"
            )

        wait_for(
            "the new revision's scores are refused",
            judged,
            seconds=START_SECONDS,
            every=1,
            story=cluster.story(overlap.namespace),
        )
        enough = stream.answered + 20
        wait_for(
            "the running revision goes on answering",
            lambda: stream.answered >= enough,
            seconds=60,
            story=stream.report,
        )
    assert not stream.failures, stream.report()
    assert_panda_first(ask(gateway.service, overlap.key, question(overlap.name)))

    found = cluster.model(overlap.name, overlap.namespace)
    assert found is not None
    verified, ready = condition(found, "ScoringVerified"), condition(found, "Ready")
    assert verified["reason"] == "ScoresInverted"
    assert "wrong order" in verified["message"]
    assert (ready["status"], ready["reason"]) == ("False", "ScoresInverted")
    assert is_true(found, "Serving")
    assert phase(found) == "Degraded"
    assert "of an earlier one" in found["status"]["message"]
    events = events_about(cluster, "ModelDeployment", overlap.name, overlap.namespace)
    assert "ScoresInverted" in {event["reason"] for event in events if event["type"] == "Warning"}
    [still] = cluster.ready_pods_of(overlap.name, overlap.namespace)
    assert still["metadata"]["uid"] == running["metadata"]["uid"]


def test_the_revision_set_back_leaves_the_running_pod_alone(
    cluster: Cluster, gateway: Gateway, overlap: Served
) -> None:
    """The spec as it was: no new start, the pod that never left is the newest again."""
    [running] = cluster.ready_pods_of(overlap.name, overlap.namespace)
    _revise(cluster, overlap, "main")
    cluster.wait_ready(overlap.name, overlap.namespace, seconds=60)
    wait_for(
        "the refused pod is gone",
        lambda: len(cluster.pods_of(overlap.name, overlap.namespace)) == 1,
        seconds=180,
        story=cluster.story(overlap.namespace),
    )
    [left] = cluster.ready_pods_of(overlap.name, overlap.namespace)
    assert left["metadata"]["uid"] == running["metadata"]["uid"]
    assert is_true(cluster.model(overlap.name, overlap.namespace), "ScoringVerified")
    assert_panda_first(ask(gateway.service, overlap.key, question(overlap.name)))


def _revise(cluster: Cluster, overlap: Served, revision: str) -> None:
    source = {"spec": {"model": {"huggingFace": {"revision": revision}}}}
    cluster.kubectl.patch("md", overlap.name, overlap.namespace, source)
