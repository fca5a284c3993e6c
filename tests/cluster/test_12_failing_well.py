"""What goes wrong with an engine is told on the model in words, and what can heal by itself does.

Two engines hang in two ways, which takes minutes to be found out: the other tests go on meanwhile.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import START_SECONDS, Cluster
from tests.cluster.harness.described import wait_described, wait_warned
from tests.cluster.harness.fixtures import Served
from tests.cluster.harness.gateway import Gateway, ask, assert_panda_first, bearer, question
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.objects import REFUSED, SERVING, Object, api_key, condition, model, phase
from tests.cluster.harness.stream import SteadyStream

NAMESPACE, MODEL, HANGING = "rerank-test-failing", "overlap", "hanging"
FAULTS, GOOD = "demo/faults", "demo/word-overlap"
# A minute without anything done, half a minute for an answer, and as much again for a loaded machine.
HUNG_SECONDS = 180.0
# Three minutes without an answer to /health, and time for a loaded machine.
SILENT_SECONDS = 270.0

REFUSALS: dict[str, tuple[str, str, Object, str, list[str]]] = {
    # name: repository, branch, further fields, reason, words of the message
    "remote-code": (FAULTS, "remote-code", {}, "RemoteCodeRequired", ["trustRemoteCode"]),
    "architecture": (FAULTS, "architecture", {}, "UnsupportedArchitecture", ["DebertaV2"]),
    "tokenizer": (FAULTS, "tokenizer", {"resources": SERVING}, "TokenizerInvalid", ["tokenizer.json"]),
    "memory": (GOOD, "main", {}, "EngineOutOfMemory", ["resources.memory"]),
    "flag": (
        GOOD,
        "main",
        {"resources": SERVING, "engine": {"extraArgs": ["--max-num-seqs=many"]}},
        "InvalidOptions",
        ["engine.extraArgs", "--max-num-seqs", "many"],
    ),
    "layers": (FAULTS, "layers", {"resources": SERVING}, "UnsupportedArchitecture", ["encoder.layer.1"]),
}
# Sends a signal to the processes of a pod whose command line begins so.
SIGNAL = """
import os, pathlib, sys
number, begins = int(sys.argv[1]), sys.argv[2].encode()
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    if b" ".join((entry / "cmdline").read_bytes().split(b"\\0")).startswith(begins):
        os.kill(int(entry.name), number)
        print(entry.name)
"""
KILL, STOP = "9", "19"
# The processes that compute, and the server before them.
ENGINE, SERVER = "VLLM::", "/opt/rerank/bin/python /opt/rerank/bin/vllm serve "
# Fills the container's memory, by a file that belongs to no process, until the kernel kills one. It is to be
# the engine's, as where that one's memory is what grows.
FILL = """
import os, pathlib
from rerank_runtime import memory_limit
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    if (entry / "cmdline").read_bytes().startswith(b"VLLM::"):
        (entry / "oom_score_adj").write_text("1000")
kills, block, file = memory_limit.kills(), bytes(2**24), os.memfd_create("filler")
while memory_limit.kills() == kills:
    os.write(file, block)
"""
# With cgroup v2 the kubelet has the kernel kill all of a container at once, which then leaves no word.
GROUP_KILLED = Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.fixture(scope="module")
def key(cluster: Cluster, release: object, namespace_of_module: str) -> str:
    """Two models that serve, and a key for all."""
    good = [model(name, namespace_of_module, GOOD) for name in (MODEL, HANGING)]
    cluster.kubectl.apply(api_key("caller", namespace_of_module), *good)
    return cluster.wait_key_ready("caller", namespace_of_module)


@pytest.fixture(scope="module")
def silent(cluster: Cluster, key: str, overlap: Served) -> Served:
    """A model whose server is stopped while nobody asks it."""
    cluster.wait_ready(overlap.name, overlap.namespace)
    _signal(cluster, overlap.name, overlap.namespace, STOP, SERVER)
    return overlap


@pytest.fixture(scope="module")
def hang(cluster: Cluster, gateway: Gateway, key: str, silent: Served) -> Iterator[None]:
    """An engine that is stopped while callers wait for it."""
    cluster.wait_ready(HANGING, NAMESPACE)
    _signal(cluster, HANGING, NAMESPACE, STOP, ENGINE)
    callers = SteadyStream(
        gateway.service,
        "/v1/rerank",
        headers={**bearer(key), **JSON_BODY},
        body=json.dumps(question(HANGING)).encode(),
    )
    with callers:
        yield


@pytest.fixture(scope="module")
def refused(cluster: Cluster, namespace_of_module: str, hang: None) -> None:
    """Several models that cannot be served, applied at once."""
    cluster.kubectl.apply(
        *(
            model(
                name, namespace_of_module, repo, source={"revision": branch}, **{"resources": REFUSED} | more
            )
            for name, (repo, branch, more, _, _) in REFUSALS.items()
        )
    )


@pytest.mark.parametrize("name", REFUSALS)
def test_the_reason_stands_on_the_model(cluster: Cluster, refused: None, name: str) -> None:
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


def test_an_engine_that_is_killed_comes_back(
    cluster: Cluster, gateway: Gateway, key: str, hang: None
) -> None:
    cluster.wait_ready(MODEL, NAMESPACE)
    _signal(cluster, MODEL, NAMESPACE, KILL, ENGINE)
    failed = cluster.wait_reason(MODEL, NAMESPACE, "EngineFailed", seconds=120)
    assert "ended with" in failed["message"]
    wait_described(cluster, MODEL, NAMESPACE, failed)
    cluster.wait_ready(MODEL, NAMESPACE)
    assert_panda_first(ask(gateway.service, key, question(MODEL)))


def test_an_engine_that_the_kernel_kills_for_its_memory_comes_back(
    cluster: Cluster, gateway: Gateway, key: str, hang: None
) -> None:
    cluster.wait_ready(MODEL, NAMESPACE)
    # It may be cut off, for the container ends.
    cluster.shell.attempt("kubectl", *_in_pod(cluster, MODEL, NAMESPACE), FILL)
    reason = "OutOfMemory" if GROUP_KILLED else "EngineOutOfMemory"
    failed = cluster.wait_reason(MODEL, NAMESPACE, reason, seconds=60)
    assert "resources.memory" in failed["message"]
    wait_described(cluster, MODEL, NAMESPACE, failed)
    cluster.wait_ready(MODEL, NAMESPACE)
    assert_panda_first(ask(gateway.service, key, question(MODEL)))
    cluster.kubectl.delete("md", MODEL, NAMESPACE)


def test_an_engine_that_hangs_is_found_out_and_started_again(
    cluster: Cluster, gateway: Gateway, key: str, hang: None
) -> None:
    """/health stays at 200, and no request comes back."""
    told = wait_warned(cluster, HANGING, NAMESPACE, "EngineHung", seconds=HUNG_SECONDS)
    assert "with requests in flight" in told
    cluster.wait_ready(HANGING, NAMESPACE)
    assert_panda_first(ask(gateway.service, key, question(HANGING)))
    cluster.kubectl.delete("md", HANGING, NAMESPACE)


def test_a_server_that_falls_silent_is_found_out(
    cluster: Cluster, silent: Served, request: pytest.FixtureRequest
) -> None:
    """Nobody asks, and /health is not answered. That it serves again, the next test that uses it shows."""
    request.getfixturevalue("from_gguf_applied")  # what the next tests need starts meanwhile
    told = wait_warned(cluster, silent.name, silent.namespace, "EngineHung", seconds=SILENT_SECONDS)
    assert "/health" in told


def _signal(cluster: Cluster, name: str, namespace: str, number: str, begins: str) -> None:
    told = cluster.kubectl(*_in_pod(cluster, name, namespace), SIGNAL, number, begins)
    assert told.split(), f"no process of {name} begins with {begins}"


def _in_pod(cluster: Cluster, name: str, namespace: str) -> tuple[str, ...]:
    """The words that run a script in a model's pod, but for the script."""
    [pod] = cluster.ready_pods_of(name, namespace)
    where = (pod["metadata"]["name"], f"--namespace={namespace}", "--container=serve")
    return ("exec", *where, "--", "/opt/rerank/bin/python", "-c")
