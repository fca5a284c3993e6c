"""The chart's life: helm test, upgrades that replace no pod without need, uninstalling, which keeps models.

Near the end, for it takes the release away.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import SYSTEM, Cluster
from tests.cluster.harness.fixtures import RELEASE, Release, Tutorial
from tests.cluster.harness.gateway import Gateway, bearer, question
from tests.cluster.harness.http import JSON_BODY
from tests.cluster.harness.stream import SteadyStream
from tests.cluster.harness.waiting import wait_for

CRDS = ("modeldeployments.rerank.dev", "apikeys.rerank.dev", "catalogmodels.rerank.dev")
HELM_TEST = ("helm", "test", RELEASE, f"--namespace={SYSTEM}", "--timeout=180s")


def pods_of(cluster: Cluster, component: str) -> set[str]:
    """The uids of a component's pods."""
    labels = f"app.kubernetes.io/name={component}"
    return {pod["metadata"]["uid"] for pod in cluster.api.list("pods", SYSTEM, labels=labels)}


def all_pods(cluster: Cluster) -> dict[str, set[str]]:
    """The uids of the pods of operator, gateway and the example's model."""
    model = {pod["metadata"]["uid"] for pod in cluster.pods_of("minilm", "default")}
    return {name: pods_of(cluster, name) for name in ("rerank-operator", "rerank-gateway")} | {
        "minilm": model
    }


def test_helm_test_ranks_with_a_model_and_a_key(
    cluster: Cluster, release: Release, tutorial: Tutorial
) -> None:
    """Naming them is an upgrade that replaces no pod."""
    cluster.wait_ready("minilm", "default")
    before = all_pods(cluster)
    release.upgrade("test.model=minilm", "test.keySecret=search-key", "test.namespace=default")
    cluster.shell.run(*HELM_TEST, seconds=200)
    said = cluster.kubectl("logs", "rerank-test", "--namespace=default")
    assert "ok: minilm ranks the panda's text first" in said, said
    assert tutorial.key not in said
    assert all_pods(cluster) == before
    cluster.kubectl("delete", "pod", "rerank-test", "--namespace=default", "--wait=false")


@pytest.fixture
def next_chart(release: Release, tmp_path: Path) -> Iterator[Release]:
    """The chart of a next version, for the same images, with another description in a CRD."""
    chart = tmp_path / "rerank-operator"
    shutil.copytree(release.chart, chart)
    metadata = chart / "Chart.yaml"
    text = metadata.read_text()
    versions = "version: 0.1.0\nappVersion: 0.1.0"
    assert versions in text
    metadata.write_text(text.replace(versions, "version: 0.2.0\nappVersion: 0.2.0"))
    crd = chart / "files/crds/rerank.dev_modeldeployments.yaml"
    text = crd.read_text()
    old = "A reranking model that runs on this cluster."
    assert old in text
    crd.write_text(text.replace(old, CHANGED))
    yield replace(release, chart=chart)
    release.upgrade()


CHANGED = "A model of the next version."


def test_an_upgrade_and_back_changes_the_crds_and_replaces_no_pod(
    cluster: Cluster, gateway: Gateway, release: Release, next_chart: Release, tutorial: Tutorial
) -> None:
    """Under load: `kubectl explain` shows the next version, objects and pods stay, no request fails."""
    before = cluster.model("minilm", "default")
    assert before is not None
    pods = all_pods(cluster)
    stream = SteadyStream(
        gateway.service,
        "/v1/rerank",
        headers={**bearer(tutorial.key), **JSON_BODY},
        body=json.dumps(question("minilm")).encode(),
    )
    with stream:
        next_chart.upgrade()
        assert CHANGED in str(cluster.api.get("customresourcedefinitions", CRDS[0]))
        wait_for(
            "kubectl explains the new version",
            lambda: CHANGED in cluster.kubectl("explain", "md"),
            seconds=30,
        )
        release.upgrade()
        assert CHANGED not in str(cluster.api.get("customresourcedefinitions", CRDS[0]))
        enough = stream.answered + 10
        wait_for("requests go on", lambda: stream.answered >= enough, seconds=60, story=stream.report)
    assert not stream.failures, stream.report()
    after = cluster.model("minilm", "default")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert all_pods(cluster) == pods


def test_a_setting_replaces_the_pods_that_read_it(
    cluster: Cluster, release: Release, tutorial: Tutorial
) -> None:
    before = all_pods(cluster)
    release.upgrade("operator.logLevel=warning")
    after = all_pods(cluster)
    assert not after["rerank-operator"] & before["rerank-operator"]
    assert after["rerank-gateway"] == before["rerank-gateway"]
    assert after["minilm"] == before["minilm"]
    release.upgrade()


def test_uninstall_keeps_crds_and_serving_models(
    cluster: Cluster, release: Release, tutorial: Tutorial
) -> None:
    cluster.wait_ready("minilm", "default")
    before = {pod["metadata"]["uid"] for pod in cluster.ready_pods_of("minilm", "default")}
    assert before
    said = uninstall(cluster)
    for name in CRDS:
        assert f"[CustomResourceDefinition] {name}" in said, "what stays is told"
    try:
        for name in CRDS:
            assert cluster.api.get("customresourcedefinitions", name) is not None
        assert cluster.model("minilm", "default") is not None
        assert cluster.api.get("apikeys", "search", "default") is not None
        assert cluster.api.get("secrets", "search-key", "default") is not None
        assert {pod["metadata"]["uid"] for pod in cluster.ready_pods_of("minilm", "default")} == before
        for kind in ("clusterroles", "clusterrolebindings"):
            ours = [
                f["metadata"]["name"]
                for f in cluster.api.list(kind)
                if f["metadata"]["name"].startswith("rerank-")
            ]
            assert not ours
    finally:
        release.upgrade()
    # Installed again, it takes up what it finds: no key is minted anew and no pod is replaced.
    cluster.wait_ready("minilm", "default")
    assert {pod["metadata"]["uid"] for pod in cluster.ready_pods_of("minilm", "default")} == before
    assert cluster.key_of("search-key", "default") == tutorial.key


def test_the_packaged_chart_installs_with_its_defaults(
    cluster: Cluster, release: Release, tutorial: Tutorial, tmp_path: Path
) -> None:
    """`helm package`, `helm install` without a value, `helm test`: what a newcomer does."""
    cluster.shell.run("helm", "package", str(release.chart), f"--destination={tmp_path}")
    (package,) = tmp_path.glob("rerank-operator-*.tgz")
    uninstall(cluster)
    try:
        install = ("helm", "install", RELEASE, str(package), f"--namespace={SYSTEM}")
        said = cluster.shell.run(*install, "--wait", "--timeout=240s", seconds=270)
        assert f"helm test {RELEASE} --namespace {SYSTEM} --logs" in said, "the notes name the next command"
        said = cluster.shell.run(*HELM_TEST, "--logs", seconds=200)
        assert "ok: a request without a key is refused with 401 and a reason" in said, said
        assert "not checked: a ranking" in said, said
    finally:
        release.upgrade()


def uninstall(cluster: Cluster) -> str:
    """Uninstall the release, wait until its pods are gone, and return what helm says."""
    words = ("helm", "uninstall", RELEASE, f"--namespace={SYSTEM}", "--wait", "--timeout=180s")
    return cluster.shell.run(*words, seconds=200)
