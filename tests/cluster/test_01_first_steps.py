"""What a newcomer does: two files, and what kubectl shows of them while and after the model starts."""

import pytest

from tests.cluster.harness.cluster import Cluster, events_about, repository
from tests.cluster.harness.fixtures import Release, Tutorial
from tests.cluster.harness.gateway import DOCUMENTS, PANDA, Gateway, ask, question, ranking
from tests.cluster.harness.http import send
from tests.cluster.harness.objects import condition, is_true
from tests.cluster.harness.waiting import wait_for

PHASES = ["Pending", "Downloading", "Starting", "Verifying", "Ready"]
STORY = ["Scheduled", "Downloading", "Downloaded", "ScoringVerified", "Ready"]
CONDITIONS = ["Scheduled", "Downloaded", "Serving", "ScoringVerified", "Progressing", "Ready"]


def test_phases_only_ever_advance(tutorial: Tutorial) -> None:
    """While the model starts, a watcher sees progress in the documented order."""
    known = [PHASES.index(each) for each in tutorial.phases]
    assert known == sorted(known), tutorial.phases
    assert {"Starting", "Ready"} <= set(tutorial.phases), tutorial.phases


def test_the_example_job_ranks_the_panda_first(cluster: Cluster, tutorial: Tutorial) -> None:
    """An application's pod asks by the gateway's DNS name with the key from its Secret."""
    cluster.kubectl("delete", "job", "ask", "--namespace=default", "--ignore-not-found", "--wait")
    cluster.kubectl.apply_file(repository() / "manifests/examples/04-ask-from-a-pod.yaml")
    wait_for(
        "the example's Job is complete",
        lambda: is_true(cluster.api.get("jobs", "ask", "default"), "Complete"),
        seconds=120,
        story=cluster.story("default"),
    )
    lines = cluster.kubectl("logs", "job/ask", "--namespace=default").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [PANDA, "it is a bear", "hi"]


def test_scores_are_those_of_the_model(gateway: Gateway, tutorial: Tutorial) -> None:
    """The cosines that sentence-transformers gives for all-MiniLM-L6-v2, in the precision of fp16."""
    answer = ask(gateway.service, tutorial.key, question("minilm"))
    ranked = ranking(answer)
    assert [index for index, _ in ranked] == [2, 1, 0]
    assert [score for _, score in ranked] == pytest.approx([0.7455, 0.4255, 0.0914], abs=0.01)
    body = answer.json()
    assert body["object"] == "list"
    assert body["results"][0]["document"] == {"text": PANDA}
    assert body["usage"]["total_tokens"] > 0
    assert body["meta"]["billed_units"]["search_units"] == 1


def test_the_repository_id_is_a_name_too(gateway: Gateway, tutorial: Tutorial) -> None:
    answer = ask(gateway.service, tutorial.key, question("sentence-transformers/all-MiniLM-L6-v2", top_n=1))
    assert [index for index, _ in ranking(answer)] == [DOCUMENTS.index(PANDA)]


def test_x_api_key_carries_the_key_too(gateway: Gateway, tutorial: Tutorial) -> None:
    answer = send(gateway.service, "GET", "/v1/models", headers={"X-API-Key": tutorial.key})
    assert answer.status == 200, str(answer)
    [entry] = answer.json()["data"]
    assert (entry["id"], entry["ready"], entry["category"]) == ("minilm", True, "reranker")
    assert entry["max_model_len"] > 0


def test_columns_of_models(cluster: Cluster, tutorial: Tutorial) -> None:
    [row] = cluster.kubectl.table("md", "minilm", "--namespace=default")
    assert list(row) == ["NAME", "MODEL", "READY", "PHASE", "SCORING", "AGE"]
    del row["AGE"]
    repo = "sentence-transformers/all-MiniLM-L6-v2"
    assert row == {"NAME": "minilm", "MODEL": repo, "READY": "1/1", "PHASE": "Ready", "SCORING": "Cosine"}


def test_wide_columns_of_models(cluster: Cluster, tutorial: Tutorial) -> None:
    [row] = cluster.kubectl.table("md", "minilm", "--namespace=default", "--output=wide")
    assert list(row)[6:] == ["TOKENS/S", "REVISION", "ENDPOINT", "MESSAGE"]
    assert len(row["REVISION"]) == 40
    assert row["ENDPOINT"] == "http://rerank-gateway.rerank-system/v1/rerank"


def test_columns_of_keys(cluster: Cluster, tutorial: Tutorial) -> None:
    [row] = cluster.kubectl.table("apikey", "search", "--namespace=default")
    assert list(row) == ["NAME", "HINT", "READY", "REASON", "EXPIRES", "SECRET", "LAST USED", "AGE"]
    assert (row["READY"], row["REASON"], row["SECRET"]) == ("True", "Active", "search-key")
    assert tutorial.key.startswith(row["HINT"].rstrip("…."))
    assert len(row["HINT"]) < 20, "a hint is not the key"


def test_status_tells_what_was_found(cluster: Cluster, tutorial: Tutorial) -> None:
    found = cluster.model("minilm", "default")
    assert found is not None
    assert [each for each in CONDITIONS if condition(found, each)] == CONDITIONS
    for each in ("Scheduled", "Downloaded", "Serving", "ScoringVerified", "Ready"):
        assert is_true(found, each), condition(found, each)
    for each in found["status"]["conditions"]:
        assert each["reason"], each
        assert each["message"], each
    model = found["status"]["model"]
    assert (model["family"], model["architecture"]) == ("bert", "BertModel")
    assert model["scoring"]["method"] == "Cosine"
    assert model["weightsBytes"] > 80_000_000
    cases = {case["query"]: case for case in model["scoring"]["cases"]}
    panda = cases["What is a panda?"]
    assert panda["language"] == "en"
    assert panda["relevant"] > panda["irrelevant"] + 0.3, panda
    assert {case["language"] for case in cases.values()} >= {"en", "zh", "ar", "es"}, cases
    assert found["status"]["selector"] == "rerank.dev/model=minilm"


def test_describe_tells_the_story(cluster: Cluster, tutorial: Tutorial) -> None:
    """`kubectl describe` ends in the events: what happened, in order, ending in Ready."""
    text = cluster.kubectl("describe", "md", "minilm", "--namespace=default")
    for each in CONDITIONS:
        assert each in text
    assert "Events:" in text
    events = events_about(cluster, "ModelDeployment", "minilm", "default")
    assert all(event["type"] == "Normal" for event in events), [(e["reason"], e["message"]) for e in events]
    assert all(event["message"] for event in events), events
    assert [event["reason"] for event in events] == STORY
    told = [line.split()[1] for line in text.split("Events:")[1].splitlines() if " Normal " in line]
    assert told == STORY, text


@pytest.mark.parametrize(
    "path", ["md", "md.spec", "md.spec.model", "md.spec.model.huggingFace", "md.status", "apikey.spec"]
)
def test_explain_reads_well(cluster: Cluster, release: Release, path: str) -> None:
    """Every field has a description and none is left to guess at."""
    text = cluster.kubectl("explain", path)
    assert "DESCRIPTION:" in text
    fields = text.split("FIELDS:")[1]
    described = [
        line for line in fields.splitlines() if line.startswith("    ") and not line.startswith("     ")
    ]
    assert described, text
    assert "<no description>" not in fields, text


def test_explain_names_the_sources(cluster: Cluster, release: Release) -> None:
    text = cluster.kubectl("explain", "md.spec.model")
    for word in ("huggingFace", "persistentVolumeClaim", "exactly one"):
        assert word in text


def test_a_key_is_in_its_secret_alone(cluster: Cluster, tutorial: Tutorial) -> None:
    """Neither the APIKey, nor an event, nor a log line holds the key."""
    secret_part = tutorial.key.split("_")[2]
    for resource in ("apikeys", "events", "configmaps", "pods", "deployments"):
        for found in cluster.api.list(resource):
            assert secret_part not in str(found), f"{resource} {found['metadata']['name']}"
    for name in ("rerank-operator", "rerank-gateway"):
        selector = f"--selector=app.kubernetes.io/name={name}"
        logs = cluster.kubectl("logs", selector, "--namespace=rerank-system", "--tail=-1")
        assert secret_part not in logs
