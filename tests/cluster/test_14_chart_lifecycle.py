"""helm upgrade and uninstall: CRDs are kept and models serve on. Last, for it takes the release away."""

import shutil
from dataclasses import replace
from pathlib import Path

from tests.cluster.harness.cluster import SYSTEM, Cluster
from tests.cluster.harness.fixtures import RELEASE, Release, Tutorial
from tests.cluster.harness.waiting import wait_for

CRDS = ("modeldeployments.rerank.dev", "apikeys.rerank.dev", "catalogmodels.rerank.dev")


def test_upgrade_upgrades_the_crds(
    cluster: Cluster, release: Release, tutorial: Tutorial, tmp_path: Path
) -> None:
    """A next chart with another description in a CRD: `kubectl explain` shows it, objects stay."""
    before = cluster.model("minilm", "default")
    assert before is not None
    chart = tmp_path / "rerank-operator"
    shutil.copytree(release.chart, chart)
    changed = "A model of the next version."
    crd = chart / "files/crds/rerank.dev_modeldeployments.yaml"
    text = crd.read_text()
    old = "A reranking model that runs on this cluster."
    assert old in text
    crd.write_text(text.replace(old, changed))
    replace(release, chart=chart).upgrade()
    found = cluster.api.get("customresourcedefinitions", CRDS[0])
    assert changed in str(found)
    wait_for(
        "kubectl explains the new version",
        lambda: changed in cluster.kubectl("explain", "md"),
        seconds=30,
    )
    after = cluster.model("minilm", "default")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    release.upgrade()
    assert changed not in str(cluster.api.get("customresourcedefinitions", CRDS[0]))


def test_uninstall_keeps_crds_and_serving_models(
    cluster: Cluster, release: Release, tutorial: Tutorial
) -> None:
    cluster.wait_ready("minilm", "default")
    before = {pod["metadata"]["uid"] for pod in cluster.ready_pods_of("minilm", "default")}
    assert before
    cluster.shell.run(
        "helm", "uninstall", RELEASE, f"--namespace={SYSTEM}", "--wait", "--timeout=180s", seconds=200
    )
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
