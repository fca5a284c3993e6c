"""A new revision whose scores are wrong never takes over: the running one goes on serving, and says why."""

import json

import pytest

from tests.cluster.harness.cluster import START_SECONDS, Cluster, events_about
from tests.cluster.harness.gateway import Gateway, ask, assert_panda_first, bearer, question
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.objects import api_key, condition, is_true, model, phase
from tests.cluster.harness.stream import SteadyStream
from tests.cluster.harness.waiting import wait_for

NAMESPACE, MODEL = "rerank-test-rollout", "overlap"


@pytest.fixture(scope="module")
def key(cluster: Cluster, release: object, namespace_of_module: str) -> str:
    """A model that serves the right revision, and a key for it."""
    cluster.kubectl.apply(
        api_key("caller", namespace_of_module), model(MODEL, namespace_of_module, "demo/word-overlap")
    )
    key = cluster.wait_key_ready("caller", namespace_of_module)
    cluster.wait_ready(MODEL, NAMESPACE)
    return key


def test_an_inverted_revision_does_not_replace_the_running_one(
    cluster: Cluster, gateway: Gateway, key: str
) -> None:
    [running] = cluster.ready_pods_of(MODEL, NAMESPACE)
    served = cluster.ready_endpoints_of(MODEL, NAMESPACE)
    stream = SteadyStream(
        gateway.service,
        "/v1/rerank",
        headers={**bearer(key), **JSON_BODY},
        body=json.dumps(question(MODEL)).encode(),
    )
    with stream:
        _revise(cluster, "inverted")

        def judged() -> bool:
            assert cluster.ready_endpoints_of(MODEL, NAMESPACE) == served, "another pod gets requests"
            return condition(cluster.model(MODEL, NAMESPACE), "ScoringVerified").get("status") == "False"

        wait_for(
            "the new revision's scores are refused",
            judged,
            seconds=START_SECONDS,
            every=1,
            story=cluster.story(NAMESPACE),
        )
        enough = stream.answered + 20
        wait_for(
            "the running revision goes on answering",
            lambda: stream.answered >= enough,
            seconds=60,
            story=stream.report,
        )
    assert not stream.failures, stream.report()
    assert_panda_first(ask(gateway.service, key, question(MODEL)))

    found = cluster.model(MODEL, NAMESPACE)
    assert found is not None
    verified, ready = condition(found, "ScoringVerified"), condition(found, "Ready")
    assert verified["reason"] == "ScoresInverted"
    assert "wrong order" in verified["message"]
    assert (ready["status"], ready["reason"]) == ("False", "ScoresInverted")
    assert is_true(found, "Serving")
    assert phase(found) == "Degraded"
    assert "of an earlier one" in found["status"]["message"]
    events = events_about(cluster, "ModelDeployment", MODEL, NAMESPACE)
    assert "ScoresInverted" in {event["reason"] for event in events if event["type"] == "Warning"}
    [still] = cluster.ready_pods_of(MODEL, NAMESPACE)
    assert still["metadata"]["uid"] == running["metadata"]["uid"]


def test_the_revision_set_back_leaves_the_running_pod_alone(
    cluster: Cluster, gateway: Gateway, key: str
) -> None:
    """The spec as it was: no new start, the pod that never left is the newest again."""
    [running] = cluster.ready_pods_of(MODEL, NAMESPACE)
    _revise(cluster, "main")
    cluster.wait_ready(MODEL, NAMESPACE, seconds=60)
    wait_for(
        "the refused pod is gone",
        lambda: len(cluster.pods_of(MODEL, NAMESPACE)) == 1,
        seconds=180,
        story=cluster.story(NAMESPACE),
    )
    [left] = cluster.ready_pods_of(MODEL, NAMESPACE)
    assert left["metadata"]["uid"] == running["metadata"]["uid"]
    assert is_true(cluster.model(MODEL, NAMESPACE), "ScoringVerified")
    assert_panda_first(ask(gateway.service, key, question(MODEL)))
    cluster.kubectl.delete("md", MODEL, NAMESPACE)


def _revise(cluster: Cluster, revision: str) -> None:
    source = {"spec": {"model": {"huggingFace": {"revision": revision}}}}
    cluster.kubectl.patch("md", MODEL, NAMESPACE, source)
