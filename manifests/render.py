"""Writes what is derived from `crds/` and the chart.

That is the chart's copies of the CRDs, its Grafana dashboard, the table of values in its README, and
`manifests/install.yaml`.

Run by `make manifests`, from the root of the repository.
"""

import os
import shutil
import subprocess
from pathlib import Path

from dev.cluster.binaries import binaries
from manifests import dashboard, values_table

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "rerank-operator"
CRDS = ROOT / "crds"
CRD_COPIES = CHART / "files" / "crds"
DASHBOARD = CHART / "files" / "monitoring" / "dashboard.json"
INSTALL = ROOT / "manifests" / "install.yaml"
NAMESPACE = "rerank-system"
KUBE_VERSION = "1.34.0"

HEADER = f"""\
# The whole product, for `kubectl apply --server-side -f manifests/install.yaml`. Rendered from
# charts/rerank-operator with its default values by `make manifests`; change the chart, not this file.
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
    pod-security.kubernetes.io/audit: restricted
"""


def helm_path() -> Path:
    """The helm program: `$HELM`, the one on PATH, or the one that the test cluster is made with."""
    named = os.environ.get("HELM") or shutil.which("helm")
    return Path(named) if named else binaries() / "helm"


def copy_crds() -> None:
    """Make the chart's CRDs what `crds/` holds, file for file."""
    CRD_COPIES.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path.read_bytes() for path in CRDS.glob("*.yaml")}
    for stale in CRD_COPIES.glob("*.yaml"):
        if stale.name not in wanted:
            stale.unlink()
    for name, content in wanted.items():
        (CRD_COPIES / name).write_bytes(content)


def template_command(helm: Path) -> list[str | Path]:
    """How the chart is rendered without a cluster, whose version helm would otherwise make up."""
    cluster: list[str | Path] = ["--kube-version", KUBE_VERSION, "--namespace", NAMESPACE]
    return [helm, "template", *cluster, "rerank-operator", CHART]


def install_yaml(helm: Path) -> str:
    """The text of `manifests/install.yaml`: a namespace, then the chart with its default values."""
    rendered = subprocess.run(  # noqa: S603 - helm with fixed arguments
        [*template_command(helm), "--skip-tests"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return HEADER + rendered


def main() -> None:
    """Render everything."""
    copy_crds()
    DASHBOARD.write_text(dashboard.dashboard(), encoding="utf-8")
    readme = CHART / "README.md"
    text = values_table.with_table(readme.read_text(encoding="utf-8"), (CHART / "values.yaml").read_text())
    readme.write_text(text, encoding="utf-8")
    INSTALL.write_text(install_yaml(helm_path()), encoding="utf-8")


if __name__ == "__main__":
    main()
