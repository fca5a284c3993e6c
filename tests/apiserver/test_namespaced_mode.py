"""An installation with rights in its namespaces alone: no ClusterRole, and nothing that it asks refused."""

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dev.cluster.access import Access
from dev.cluster.commands import run
from manifests.render import CHART, KUBE_VERSION
from rerank_gateway.api_server import ApiServer
from tests.apiserver.api import RERANK, Api, Object, catalog_entry, eventually
from tests.apiserver.models import child_path, condition, model_path, settled
from tests.apiserver.operator_process import AuditLog, Operator, token_of
from tests.apiserver.test_chart_rights import RIGHTS, create_namespace
from tests.apiserver.test_gateway_reflector import reflecting, until

OWN = "confined-system"


@dataclass(frozen=True)
class Release:
    """A confined release, its operator running, and the namespace that it serves."""

    namespace: str
    operator: Operator
    gateway_token: str
    chart: list[Object]


def rendered(programs: Path, namespace: str) -> list[Object]:
    """The whole chart as a team installs it after an administrator applied the CRDs."""
    values = [f"--set=watchNamespaces={{{namespace}}}", "--set=rbac.clusterRoles=false"]
    command: list[str | Path] = [programs / "helm", "template", "--kube-version", KUBE_VERSION]
    command += ["--namespace", OWN, *values, "--set=crds.install=false", "--skip-tests", "rerank", CHART]
    return [item for item in yaml.safe_load_all(run(command)) if item]


@pytest.fixture
def release(control_plane: Access, api: Api, namespace: str, tmp_path: Path) -> Iterator[Release]:
    create_namespace(control_plane, OWN)
    chart = rendered(control_plane.programs, namespace)
    rights = yaml.safe_dump_all([item for item in chart if item["kind"] in RIGHTS])
    apply = [*control_plane.kubectl, "apply", "--server-side", "--force-conflicts", "--filename=-"]
    run(apply, stdin=rights)
    (deployment,) = [
        item
        for item in chart
        if item["kind"] == "Deployment" and item["metadata"]["name"] == "rerank-operator"
    ]
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    told = {item["name"]: item["value"] for item in variables if "value" in item}
    told = {name: told[name] for name in ("RERANK_WATCH_NAMESPACES", "RERANK_CATALOG_MODELS")}
    entries = tmp_path / "catalog"
    entries.mkdir()
    (entries / "built-in.json").write_text(json.dumps(catalog_entry("built-in")))
    environment = {**told, "RERANK_NAMESPACE": OWN, "RERANK_CATALOG_DIR": str(entries)}
    operator = Operator(api, tmp_path / "operator", token_of(api, OWN, "rerank-operator"), environment)
    operator.start()
    yield Release(namespace, operator, token_of(api, OWN, "rerank-gateway"), chart)
    operator.stop()


@pytest.mark.usefixtures("connections_end")
async def test_models_and_keys_work_and_nothing_is_refused(
    api: Api, control_plane: Access, release: Release
) -> None:
    kinds = {item["kind"] for item in release.chart}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    namespace = release.namespace
    resource = {"apiVersion": "rerank.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m"}}
    api.apply(model_path(namespace), {**resource, "spec": {"model": {"catalog": "built-in"}}})
    keys = f"{RERANK}/namespaces/{namespace}/apikeys"
    key = {"apiVersion": "rerank.dev/v1alpha1", "kind": "APIKey", "metadata": {"name": "k"}, "spec": {}}
    api.create(keys, key)

    eventually("the replicas are made", lambda: api.find(child_path(namespace, "deployments")))
    made = eventually("the key is minted", lambda: (api.get(f"{keys}/k").get("status") or {}).get("hashes"))
    assert api.find(f"/api/v1/namespaces/{namespace}/secrets/k")

    without_certificate = ssl.create_default_context(cafile=str(api.access.authority))
    server = ApiServer(api.access.url, tls=without_certificate, token=release.gateway_token)
    async with reflecting(server, namespace, own_namespace=OWN) as state:
        await until(lambda: bool(state.keys(made[0]["sha256"])))
        await until(lambda: state.resolve(namespace, "m") is not None)

    for component in ("rerank-operator", "rerank-gateway"):
        user = f"system:serviceaccount:{OWN}:{component}"
        requests = AuditLog(control_plane.audit_log, user).requests()
        assert requests
        decision = "authorization.k8s.io/decision"
        assert [e["requestURI"] for e in requests if e["annotations"][decision] != "allow"] == []


def test_the_built_in_catalog_is_all_that_there_is(api: Api, release: Release) -> None:
    """An entry in the cluster is out of reach, and the message says what is not."""
    namespace = release.namespace
    api.apply(f"{RERANK}/catalogmodels/{namespace}-own", catalog_entry(f"{namespace}-own"))
    resource = {"apiVersion": "rerank.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m"}}
    api.apply(model_path(namespace), {**resource, "spec": {"model": {"catalog": f"{namespace}-own"}}})
    found = settled(api, namespace, lambda b: condition(b, "Ready").get("reason") == "CatalogModelNotFound")
    assert "rights in namespaces only and knows built-in" in found["status"]["message"]
