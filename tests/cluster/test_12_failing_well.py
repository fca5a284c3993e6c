"""What goes wrong with an engine is told on the model in words, and what can heal by itself does."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.harness.cluster import START_SECONDS, Cluster
from tests.cluster.harness.described import wait_described
from tests.cluster.harness.gateway import Gateway, ask, assert_panda_first, bearer, question
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.objects import REFUSED, SERVING, Object, api_key, condition, model, phase
from tests.cluster.harness.stream import SteadyStream

NAMESPACE, MODEL, HANGING = "rerank-test-failing", "overlap", "hanging"
FAULTS = "demo/faults"
# A minute without anything done, half a minute for an answer, and as much again for a loaded machine.
HUNG_SECONDS = 180.0

REFUSALS: dict[str, tuple[str, str, Object, str, list[str]]] = {
    # name: repository, branch, resources, reason, words of the message
    "remote-code": (FAULTS, "remote-code", REFUSED, "RemoteCodeRequired", ["trustRemoteCode"]),
    "architecture": (FAULTS, "architecture", REFUSED, "UnsupportedArchitecture", ["DebertaV2"]),
    "tokenizer": (
        FAULTS,
        "tokenizer",
        REFUSED | {"memory": "2560Mi"},
        "TokenizerInvalid",
        ["tokenizer.json"],
    ),
    "memory": ("demo/word-overlap", "main", REFUSED, "EngineOutOfMemory", ["resources.memory"]),
    "layers": (FAULTS, "layers", SERVING, "UnsupportedArchitecture", ["encoder.layer.1"]),
}
# Sends a signal to the engine's processes behind the server, in the pod.
SIGNAL = """
import os, pathlib, sys
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    if (entry / "cmdline").read_bytes().startswith(b"VLLM::"):
        os.kill(int(entry.name), int(sys.argv[1]))
        print(entry.name)
"""
KILL, STOP = "9", "19"


@pytest.fixture(scope="module")
def key(cluster: Cluster, release: object, namespace_of_module: str) -> str:
    """Two models that serve, several that cannot, and a key for all."""
    refused = [
        model(name, namespace_of_module, repo, resources=resources, source={"revision": branch})
        for name, (repo, branch, resources, _, _) in REFUSALS.items()
    ]
    good = [model(name, namespace_of_module, "demo/word-overlap") for name in (MODEL, HANGING)]
    cluster.kubectl.apply(api_key("caller", namespace_of_module), *good, *refused)
    return cluster.wait_key_ready("caller", namespace_of_module)


@pytest.fixture(scope="module")
def hang(cluster: Cluster, gateway: Gateway, key: str) -> Iterator[None]:
    """An engine that is stopped while callers wait for it. It takes minutes to be found out, and the other
    tests go on meanwhile.
    """
    cluster.wait_ready(HANGING, NAMESPACE)
    _signal(cluster, HANGING, STOP)
    callers = SteadyStream(
        gateway.service,
        "/v1/rerank",
        headers={**bearer(key), **JSON_BODY},
        body=json.dumps(question(HANGING)).encode(),
    )
    with callers:
        yield


@pytest.mark.parametrize("name", REFUSALS)
def test_the_reason_stands_on_the_model(cluster: Cluster, key: str, hang: None, name: str) -> None:
    _, _, _, reason, words = REFUSALS[name]
    ready = cluster.wait_reason(name, NAMESPACE, reason, seconds=START_SECONDS)
    for word in words:
        assert word in ready["message"]
    found = cluster.model(name, NAMESPACE)
    assert phase(found) == "Failed"
    assert condition(found, "Serving")["reason"] == reason
    assert condition(found, "Downloaded")["status"] == "True"
    wait_described(cluster, name, NAMESPACE, ready)
    cluster.kubectl.delete("md", name, NAMESPACE)


def test_an_engine_that_is_killed_comes_back(cluster: Cluster, gateway: Gateway, key: str) -> None:
    cluster.wait_ready(MODEL, NAMESPACE)
    _signal(cluster, MODEL, KILL)
    failed = cluster.wait_reason(MODEL, NAMESPACE, "EngineFailed", seconds=120)
    assert "ended with" in failed["message"]
    wait_described(cluster, MODEL, NAMESPACE, failed)
    cluster.wait_ready(MODEL, NAMESPACE)
    assert_panda_first(ask(gateway.service, key, question(MODEL)))


def test_an_engine_that_hangs_is_found_out_and_started_again(
    cluster: Cluster, gateway: Gateway, key: str, hang: None
) -> None:
    """/health stays at 200, and no request comes back."""
    hung = cluster.wait_reason(HANGING, NAMESPACE, "EngineHung", seconds=HUNG_SECONDS)
    assert "with requests in flight" in hung["message"]
    wait_described(cluster, HANGING, NAMESPACE, hung)
    cluster.wait_ready(HANGING, NAMESPACE)
    assert_panda_first(ask(gateway.service, key, question(HANGING)))
    for name in (MODEL, HANGING):
        cluster.kubectl.delete("md", name, NAMESPACE)


def _signal(cluster: Cluster, name: str, number: str) -> None:
    [pod] = cluster.ready_pods_of(name, NAMESPACE)
    words = (pod["metadata"]["name"], f"--namespace={NAMESPACE}", "--container=serve")
    told = cluster.kubectl("exec", *words, "--", "/opt/rerank/bin/python", "-c", SIGNAL, number)
    assert told.split(), "the engine's processes were not found"
