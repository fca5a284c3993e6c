"""What the tests on the full node share: the cluster, the installed chart, the demo hub, the example's model.

Everything is installed once for a run, fresh: what an earlier run or the demo left is removed first. The node
stays up afterwards, with what the run left in it, for looking around and for the next run.
"""

from collections.abc import Iterator

import pytest

from dev.cluster.access import Access
from tests.cluster.harness import installation
from tests.cluster.harness.api import proxied
from tests.cluster.harness.cluster import START_SECONDS, Cluster, cluster_of, repository, shell_of
from tests.cluster.harness.fixtures import FROM_GGUF, INSTRUCTION, Release, Served, Tutorial
from tests.cluster.harness.gateway import Gateway
from tests.cluster.harness.objects import api_key, is_true, model, namespace_object, phase
from tests.cluster.harness.waiting import wait_for


@pytest.fixture(scope="session")
def cluster(node: Access) -> Iterator[Cluster]:
    """The full node, with kubectl, helm, a cheap way to read the API server, and its audit log."""
    shell = shell_of(node)
    with proxied(shell) as api:
        yield cluster_of(node, api, shell)


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Release:
    """The images of this tree loaded, the demo hub running, and the chart installed on a clean cluster."""
    return installation.install(cluster)


@pytest.fixture(scope="session")
def gateway(cluster: Cluster, release: Release) -> Gateway:
    """The gateway, by its Service and by each replica."""
    return Gateway(cluster)


@pytest.fixture(scope="session")
def tutorial(cluster: Cluster, release: Release) -> Tutorial:
    """The example files applied as they are, and the model Ready."""
    examples = repository() / "manifests/examples"
    cluster.kubectl.apply_file(examples / "01-model.yaml", examples / "02-api-key.yaml")
    cluster.kubectl.apply(api_key("every-model", "default"))
    phases: list[str] = []

    def ready() -> bool:
        found = cluster.model("minilm", "default")
        seen = phase(found)
        if seen and phases[-1:] != [seen]:
            phases.append(seen)
        return is_true(found, "Ready")

    story = cluster.story("default")
    wait_for("the example's model is Ready", ready, seconds=START_SECONDS, every=0.2, story=story)
    return Tutorial(
        key=cluster.wait_key_ready("search", "default", secret="search-key"),
        key_for_all=cluster.wait_key_ready("every-model", "default"),
        phases=phases,
    )


OVERLAP, OVERLAP_NAMESPACE = "overlap", "rerank-test-overlap"


@pytest.fixture(scope="session")
def overlap_applied(cluster: Cluster, release: Release) -> None:
    """The model of `overlap` and its key. A test that has to wait asks for it, and it starts meanwhile."""
    cluster.kubectl.apply(namespace_object(OVERLAP_NAMESPACE))
    cluster.kubectl.apply(
        api_key("caller", OVERLAP_NAMESPACE), model(OVERLAP, OVERLAP_NAMESPACE, "demo/word-overlap")
    )


@pytest.fixture(scope="session")
def overlap(cluster: Cluster, overlap_applied: None) -> Served:
    """A cross-encoder that serves. Tests use it one after the other, and leave it serving or on its way."""
    key = cluster.wait_key_ready("caller", OVERLAP_NAMESPACE)
    cluster.wait_ready(OVERLAP, OVERLAP_NAMESPACE)
    return Served(OVERLAP, OVERLAP_NAMESPACE, key)


@pytest.fixture(scope="session")
def from_gguf_applied(cluster: Cluster, release: Release) -> None:
    """Two models from GGUF files and a key for them, applied as `overlap_applied` is."""
    report = {"verification": {"mode": "Report"}}
    file = {"file": "*Q8_0.gguf"}
    cluster.kubectl.apply(namespace_object(FROM_GGUF))
    cluster.kubectl.apply(
        api_key("caller", FROM_GGUF),
        model("paired", FROM_GGUF, "demo/bge-reranker-gguf", source=file, scoring=report),
        model(
            "prompted",
            FROM_GGUF,
            "demo/qwen3-reranker-gguf",
            source=file,
            scoring=report | {"instruction": INSTRUCTION},
        ),
    )


@pytest.fixture(scope="module")
def namespace_of_module(cluster: Cluster, release: Release, request: pytest.FixtureRequest) -> str:
    """The namespace that the module names, which enforces Pod Security `restricted`."""
    name: str = request.module.NAMESPACE
    cluster.kubectl.apply(namespace_object(name))
    return name


@pytest.fixture(scope="session")
def other(cluster: Cluster, release: Release) -> str:
    """A namespace without models of the example's."""
    cluster.kubectl.apply(namespace_object("rerank-test-other"))
    return "rerank-test-other"
