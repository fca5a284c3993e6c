"""Installing the product, as the README tells people to: helm for the chart, kubectl for the examples."""

from pathlib import Path
from typing import Any

from dev.demo.cluster import Cluster
from dev.demo.objects import Subject

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "rerank-operator"
HUB_MANIFEST = ROOT / "dev" / "hub" / "hub.yaml"
SYSTEM = "rerank-system"
INSTALL_SECONDS = 300
RESTRICTED = "pod-security.kubernetes.io/enforce"


def namespace(cluster: Cluster) -> None:
    """The release's namespace, where only pods of Pod Security `restricted` are admitted."""
    metadata = {"name": SYSTEM, "labels": {RESTRICTED: "restricted"}}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def chart(cluster: Cluster, tag: str, hub: str) -> None:
    """Install or upgrade the chart, and wait until operator and gateway are ready."""
    settings = {"image.tag": tag, "huggingFace.endpoint": hub}
    values = [f"--set-string={name}={value}" for name, value in settings.items()]
    release = ["upgrade", "--install", "rerank-operator", str(CHART), f"--namespace={SYSTEM}"]
    wait = ["--wait", f"--timeout={INSTALL_SECONDS}s"]
    cluster.helm(*release, *values, *wait, seconds=INSTALL_SECONDS + 30)


def demo_hub(cluster: Cluster, tag: str) -> None:
    """Start the demo hub, with the image of this tree."""
    text = HUB_MANIFEST.read_text(encoding="utf-8").replace("rerank-demo-hub:0.1.0", f"rerank-demo-hub:{tag}")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)


def subject(cluster: Cluster, wanted: Subject) -> list[dict[str, Any]]:
    """Apply the model and the key; the example files just as they are. Return both, as applied."""
    if wanted.files:
        cluster.kubectl("apply", *(f"--filename={path}" for path in wanted.files))
    else:
        cluster.apply(wanted.model, wanted.key)
    return [wanted.model, wanted.key]
