"""From whatever is in the cluster to a fresh installation of this tree."""

from dev.cluster.images import PRODUCTS
from dev.cluster.native import NativeCluster
from dev.demo import install as demo
from dev.demo.cluster import Cluster as DemoCluster
from rerank_api import names
from tests.cluster.harness.cluster import SYSTEM, Cluster, repository
from tests.cluster.harness.fixtures import RELEASE, Release
from tests.cluster.harness.objects import namespace_object
from tests.cluster.harness.waiting import wait_for

TEST_NAMESPACES = "rerank-test-"
CRDS = ("modeldeployments.rerank.dev", "apikeys.rerank.dev", "catalogmodels.rerank.dev")


def install(cluster: Cluster) -> Release:
    """Install the images and the chart of this tree on a cluster that has been cleaned."""
    tag = NativeCluster().images([product.target for product in PRODUCTS])
    clean(cluster)
    # Pods that are not restricted are refused from here on: in the release's namespace and where models live.
    cluster.kubectl.apply(*(namespace_object(name) for name in (SYSTEM, "default")))
    demo.demo_hub(DemoCluster(cluster.shell.environment), tag)
    chart = repository() / "charts/rerank-operator"
    release = Release(cluster.shell, chart, tag, audit_start=cluster.audit.position())
    release.upgrade()
    for workload in cluster.kubectl("get", "deployments", "--namespace=demo-hub", "--output=name").split():
        cluster.kubectl("rollout", "status", workload, "--namespace=demo-hub", "--timeout=120s", seconds=150)
    return release


def clean(cluster: Cluster) -> None:
    """Remove what an earlier run or the demo left. Pods are ended at once: nobody waits for their answers."""
    kubectl = cluster.kubectl
    cluster.shell.run(
        "helm", "uninstall", RELEASE, f"--namespace={SYSTEM}", "--ignore-not-found", seconds=120
    )
    kubectl("delete", "customresourcedefinitions", *CRDS, "--ignore-not-found", "--timeout=60s")
    kubectl("delete", "job", "ask", "--namespace=default", "--ignore-not-found")
    stale = [
        found["metadata"]["name"]
        for found in cluster.api.list("namespaces")
        if found["metadata"]["name"].startswith(TEST_NAMESPACES) or found["metadata"]["name"] == SYSTEM
    ]
    if stale:
        kubectl("delete", "namespaces", *stale, "--wait=false")

    def gone() -> bool:
        ours = [*cluster.api.list("pods", labels=f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}")]
        ours += [pod for name in stale for pod in cluster.api.list("pods", name)]
        for pod in ours:
            where = f"--namespace={pod['metadata']['namespace']}"
            words = ("--ignore-not-found", "--grace-period=0", "--force")
            kubectl("delete", "pod", pod["metadata"]["name"], where, *words)
        return not ours and not any(cluster.api.get("namespaces", name) for name in stale)

    wait_for("what was there before is gone", gone, seconds=120, every=1, story=cluster.story(*stale))
