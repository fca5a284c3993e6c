"""All that the chart can make, checked by a real API server with the schemas of whom it is made for."""

import json
from pathlib import Path

import pytest
import yaml

from dev.cluster.access import Access
from dev.cluster.binaries import ENVIRONMENT
from dev.cluster.commands import run
from dev.cluster.packages import SEARCH_PATH
from manifests.render import CHART, KUBE_VERSION
from tests.apiserver.api import Api
from tests.apiserver.test_chart_rights import create_namespace

NAMESPACE = "chart-objects"
GATEWAY_API = "sigs.k8s.io/gateway-api@v1.4.0"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
CRDS = {
    GATEWAY_API: ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"],
    PROMETHEUS_OPERATOR: [
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
}
SPREAD = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
PLACED = {
    "image": f"registry.example.com/program@sha256:{'a' * 64}",
    "podAnnotations": {"example.com/a": "b"},
    "podLabels": {"team": "search"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "infra", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]
            }
        }
    },
    "topologySpreadConstraints": [SPREAD],
    "priorityClassName": "system-cluster-critical",
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com"}],
    "serviceAccount": {"annotations": {"example.com/role": "reader"}},
}
PEERS = [{"namespaceSelector": {"matchLabels": {"team": "search"}}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]
EVERYTHING = {
    "imagePullSecrets": [{"name": "registry"}],
    "backendToken": {"existingSecret": "backend-token"},
    "operator": PLACED,
    "gateway": {
        **PLACED,
        "autoscaling": {"enabled": True},
        "service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "10m"},
            "hosts": ["rerank.example.com", "*.rerank.example.com"],
            "tlsSecret": "rerank-tls",
        },
        "httpRoute": {
            "enabled": True,
            "annotations": {"example.com/a": "b"},
            "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https", "port": 443}],
            "hostnames": ["rerank.example.com"],
        },
    },
    "networkPolicies": {
        "clients": PEERS,
        "monitoring": PEERS,
        "egress": {
            "apiServer": ["10.0.0.1/32", "fd00::1/128"],
            "additional": [{"to": PEERS, "ports": [{"protocol": "TCP", "port": 4318}]}],
        },
    },
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Search"}},
    },
    "test": {"model": "minilm", "keySecret": "search-key", "namespace": "default"},
}
CONFINED = {
    **EVERYTHING,
    "watchNamespaces": ["default"],
    "rbac": {"clusterRoles": False},
    "crds": {"install": False},
}


def module(name: str) -> Path:
    """The folder of a Go module's files, downloaded and checked by Go."""
    environment = {**ENVIRONMENT, "PATH": SEARCH_PATH, "GOFLAGS": "-mod=mod"}
    said = run(["go", "mod", "download", "-json", name], cwd=Path("/"), environment=environment)
    return Path(json.loads(said)["Dir"])


@pytest.fixture(scope="module")
def cluster(control_plane: Access, api: Api) -> Access:
    """With the CRDs of the Gateway API and of the Prometheus operator, of their own releases."""
    create_namespace(control_plane, NAMESPACE)
    for name, files in CRDS.items():
        paths = [f"--filename={module(name) / file}" for file in files]
        run([*control_plane.kubectl, "apply", "--server-side", *paths])
        for path in paths:
            crd = yaml.safe_load(Path(path.removeprefix("--filename=")).read_text())
            established = ["wait", "--for=condition=Established", f"crd/{crd['metadata']['name']}"]
            run([*control_plane.kubectl, *established, "--timeout=30s"])
    return control_plane


@pytest.mark.parametrize("values", [{}, EVERYTHING, CONFINED], ids=["default", "everything", "confined"])
def test_the_api_server_takes_every_object(cluster: Access, values: dict[str, object]) -> None:
    helm: list[str | Path] = [cluster.programs / "helm", "template", "--kube-version", KUBE_VERSION]
    helm += ["--namespace", NAMESPACE]
    chart = run([*helm, "--values=-", "rerank", CHART], stdin=yaml.safe_dump(values))
    wanted = sum(1 for item in yaml.safe_load_all(chart) if item)
    # Strict: an unknown or doubled field is an error, not a warning that nobody reads.
    checked = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"]
    said = run([*cluster.kubectl, *checked, "--filename=-"], stdin=chart)
    assert len(said.splitlines()) == wanted
