"""Models that answer 200 with wrong scores: the engine is well, the scores are not, so none is ever Ready."""

import pytest

from tests.cluster.harness.cluster import START_SECONDS, Cluster, events_about
from tests.cluster.harness.described import wait_described
from tests.cluster.harness.gateway import Gateway, ask, assert_panda_first, question
from tests.cluster.harness.objects import api_key, condition, is_true, model, phase
from tests.cluster.harness.waiting import wait_for

NAMESPACE = "rerank-test-scores"
SPOILT = {
    "constant": "ScoresConstant",
    "saturated": "ScoresSaturated",
    "nan": "ScoresNotFinite",
    "inverted": "ScoresInverted",
}


@pytest.fixture(scope="module")
def key(cluster: Cluster, release: object, namespace_of_module: str) -> str:
    """The spoilt models, applied at once, and a key for them. Never was one of them an endpoint."""
    models = [model(name, namespace_of_module, f"demo/{name}") for name in SPOILT]
    cluster.kubectl.apply(api_key("caller", namespace_of_module), *models)
    key = cluster.wait_key_ready("caller", namespace_of_module)
    reasons: dict[str, str] = {}

    def judged() -> bool:
        for name in SPOILT:
            found = cluster.model(name, NAMESPACE)
            assert not is_true(found, "Ready"), found
            assert not cluster.ready_endpoints_of(name, NAMESPACE), f"{name} gets requests"
            reasons[name] = condition(found, "ScoringVerified").get("reason", "")
        return reasons == SPOILT

    what = f"their scores are refused as {SPOILT}"
    wait_for(what, judged, seconds=2 * START_SECONDS, every=1, story=cluster.story(NAMESPACE))
    return key


@pytest.mark.parametrize("name", SPOILT)
def test_it_is_never_ready_and_says_why(cluster: Cluster, key: str, name: str) -> None:
    found = cluster.model(name, NAMESPACE)
    verified = condition(found, "ScoringVerified")
    assert (verified["status"], verified["reason"]) == ("False", SPOILT[name])
    ready = condition(found, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", SPOILT[name])
    wait_described(cluster, name, NAMESPACE, ready)
    assert condition(found, "Downloaded")["status"] == "True"
    assert phase(found) == "Failed"
    events = events_about(cluster, "ModelDeployment", name, NAMESPACE)
    assert SPOILT[name] in {event["reason"] for event in events if event["type"] == "Warning"}
    [pod] = cluster.pods_of(name, NAMESPACE)
    [serve] = pod["status"]["containerStatuses"]
    assert serve["restartCount"] == 0, "the pod stays, to be looked at"
    assert not serve["ready"]


@pytest.mark.parametrize("name", SPOILT)
def test_the_gateway_asks_it_nothing(gateway: Gateway, key: str, name: str) -> None:
    for address in gateway.replicas:
        assert ask(address, key, question(name)).status == 503


def test_corrected_it_serves(cluster: Cluster, gateway: Gateway, key: str) -> None:
    """The repository is set right: the same ModelDeployment comes to serve a cross-encoder."""
    for name in set(SPOILT) - {"inverted"}:
        cluster.kubectl.delete("md", name, NAMESPACE)
    source = {"spec": {"model": {"huggingFace": {"repo": "demo/word-overlap"}}}}
    cluster.kubectl.patch("md", "inverted", NAMESPACE, source)
    found = cluster.wait_ready("inverted", NAMESPACE)
    assert found["status"]["model"]["scoring"]["method"] == "CrossEncoder"
    assert found["status"]["model"]["repo"] == "demo/word-overlap"
    documents = ["nothing in common", "the giant panda eats bamboo", "a panda"]
    body = question("inverted", query="what does the giant panda eat", documents=documents)
    for address in gateway.replicas:
        answer = ask(address, key, body)
        assert answer.status == 200, str(answer)
        assert answer.json()["results"][0]["index"] == 1
        assert answer.json()["results"][-1]["index"] == 0
    assert_panda_first(ask(gateway.service, key, question("inverted")))
    cluster.kubectl.delete("md", "inverted", NAMESPACE)
