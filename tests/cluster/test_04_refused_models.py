"""Models that cannot be served: each says why on itself, within a minute, and heals once it is corrected."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster.harness.cluster import Cluster, events_about
from tests.cluster.harness.described import wait_described
from tests.cluster.harness.objects import REFUSED, Object, condition, is_true, model, phase, secret
from tests.cluster.harness.waiting import wait_for

NAMESPACE = "rerank-test-refused"
WITHIN_SECONDS = 60.0
# A token that came to be right is seen when the kubelet tries again: 10, 20, 40 s after each failure.
RETRY_SECONDS = 120.0
TOKEN = "hf_demo_reader"
WRONG_TOKEN = "hf_demo_wrong"

CASES: dict[str, tuple[str, Object, str, list[str]]] = {
    # name: repository, further fields, reason, words of the message
    "unknown-repo": ("demo/does-not-exist", {}, "RepositoryNotFound", ["demo/does-not-exist"]),
    "unknown-revision": (
        "demo/word-overlap",
        {"source": {"revision": "no-such-branch"}},
        "RevisionNotFound",
        ["no-such-branch"],
    ),
    "gated": ("demo/gated", {}, "RepositoryGated", ["demo/gated", "tokenSecretRef"]),
    "wrong-token": (
        "demo/gated",
        {"source": {"tokenSecretRef": {"name": "hub-token"}}},
        "TokenRejected",
        ["token"],
    ),
    "not-a-reranker": ("demo/language-model", {}, "NotAReranker", ["GPT2LMHeadModel"]),
    "embedding-model": ("sentence-transformers/all-MiniLM-L6-v2", {}, "NotAReranker", ["Cosine"]),
    "truncated": ("demo/truncated", {}, "WeightsTruncated", ["safetensors"]),
    # Less than fetching takes: the kernel kills all of the container, which leaves no word.
    "memory": (
        "demo/word-overlap",
        {"resources": REFUSED | {"memory": "40Mi"}},
        "OutOfMemory",
        ["spec.resources.memory"],
    ),
}


@pytest.fixture(scope="module")
def applied(cluster: Cluster, release: object, namespace_of_module: str) -> Iterator[float]:
    """All of them, applied at once. Yields when, on the monotonic clock; frees their memory at the end."""
    objects = [
        model(name, namespace_of_module, repo, **{"resources": REFUSED} | more)
        for name, (repo, more, _, _) in CASES.items()
    ]
    cluster.kubectl.apply(secret("hub-token", namespace_of_module, token=WRONG_TOKEN), *objects)
    yield time.monotonic()
    cluster.kubectl("delete", "md", "--all", f"--namespace={NAMESPACE}", "--wait=false")


@pytest.mark.parametrize("name", CASES)
def test_the_reason_stands_on_the_model(cluster: Cluster, applied: float, name: str) -> None:
    _, _, reason, words = CASES[name]
    left = max(1.0, applied + WITHIN_SECONDS - time.monotonic())
    ready = cluster.wait_reason(name, NAMESPACE, reason, seconds=left)
    for word in words:
        assert word in ready["message"]
    found = cluster.model(name, NAMESPACE)
    assert found is not None
    assert phase(found) == "Failed"
    assert found["status"]["message"]
    wait_described(cluster, name, NAMESPACE, ready)
    fetched = name in {"not-a-reranker", "embedding-model"}
    assert condition(found, "Downloaded")["status"] == str(fetched)
    [row] = cluster.kubectl.table("md", name, f"--namespace={NAMESPACE}")
    assert (row["READY"], row["PHASE"]) == ("0/1", "Failed")


@pytest.mark.parametrize("name", CASES)
def test_the_reason_is_an_event(cluster: Cluster, applied: float, name: str) -> None:
    _, _, reason, _ = CASES[name]

    def warned() -> bool:
        events = events_about(cluster, "ModelDeployment", name, NAMESPACE)
        return any((event["type"], event["reason"]) == ("Warning", reason) for event in events)

    wait_for(f"a warning {reason}", warned, seconds=WITHIN_SECONDS, story=cluster.story(NAMESPACE))


def test_no_token_is_told(cluster: Cluster, applied: float) -> None:
    """What a model says never holds the token that it was given."""
    cluster.wait_reason("wrong-token", NAMESPACE, "TokenRejected", seconds=WITHIN_SECONDS)
    told = [*cluster.api.list("modeldeployments", NAMESPACE), *cluster.api.list("events", NAMESPACE)]
    assert WRONG_TOKEN not in str(told)
    [pod] = cluster.pods_of("wrong-token", NAMESPACE)
    assert WRONG_TOKEN not in str(pod)
    logs = cluster.kubectl("logs", pod["metadata"]["name"], f"--namespace={NAMESPACE}", "--container=fetch")
    assert WRONG_TOKEN not in logs


def test_corrected_it_downloads(cluster: Cluster, applied: float) -> None:
    """A token named or set right, a revision that exists, memory: each download then goes through by itself.

    That such a model comes to serve is shown where scores are corrected; here there is no memory for vLLM.
    """
    corrected = ["gated", "wrong-token", "unknown-revision", "memory"]
    for name in corrected:
        cluster.wait_reason(name, NAMESPACE, CASES[name][2], seconds=WITHIN_SECONDS)
    hub = {"tokenSecretRef": {"name": "good-token", "key": "hub"}}
    cluster.kubectl.apply(
        secret("good-token", NAMESPACE, hub=TOKEN), secret("hub-token", NAMESPACE, token=TOKEN)
    )
    cluster.kubectl.patch("md", "gated", NAMESPACE, {"spec": {"model": {"huggingFace": hub}}})
    branch = {"spec": {"model": {"huggingFace": {"revision": "v2"}}}}
    cluster.kubectl.patch("md", "unknown-revision", NAMESPACE, branch)
    cluster.kubectl.patch("md", "memory", NAMESPACE, {"spec": {"resources": REFUSED}})
    waiting = set(corrected)

    def downloaded() -> bool:
        for name in list(waiting):
            found = cluster.model(name, NAMESPACE)
            if is_true(found, "Downloaded"):
                waiting.remove(name)
        return not waiting

    story = cluster.story(NAMESPACE)
    wait_for(f"{corrected} are downloaded", downloaded, seconds=RETRY_SECONDS, story=story)
