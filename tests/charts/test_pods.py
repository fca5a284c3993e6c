"""What a platform engineer may say about the pods of operator and gateway, and what restarts them."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.render import CHART, KUBE_VERSION, NAMESPACE
from tests.charts.test_chart import PROGRAMS, container, env, one, pod

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]

DIGEST = f"registry.example.com:5000/team/program@sha256:{'a' * 64}"


def template(objects: Objects, name: str) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "Deployment", name)["spec"]["template"]
    return found


@pytest.mark.parametrize("component", ["operator", "gateway"])
@pytest.mark.parametrize(
    ("field", "setting"),
    [
        ("nodeSelector", {"disk": "fast"}),
        ("tolerations", [{"key": "infra", "operator": "Exists"}]),
        ("affinity", {"nodeAffinity": {"x": []}}),
        ("priorityClassName", "system-cluster-critical"),
    ],
)
def test_where_pods_run_is_said_for_each_component(
    render: Render, objects: Objects, component: str, field: str, setting: Any
) -> None:
    changed = render(f"{component}.{field}={json.dumps(setting)}")
    (other,) = {"operator", "gateway"} - {component}
    assert pod(changed, f"rerank-{component}")[field] == setting
    assert pod(changed, f"rerank-{other}") == pod(objects, f"rerank-{other}")


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_labels_annotations_and_variables_are_added(render: Render, objects: Objects, component: str) -> None:
    name = f"rerank-{component}"
    variable = {"name": "HTTPS_PROXY", "value": "http://proxy.example.com"}
    changed = render(
        f'{component}.podLabels={{"team":"search"}}',
        f'{component}.podAnnotations={{"example.com/a":"b"}}',
        f"{component}.extraEnv=[{json.dumps(variable)}]",
    )
    before, after = template(objects, name)["metadata"], template(changed, name)["metadata"]
    assert after["labels"] == {**before["labels"], "team": "search"}
    assert after["annotations"] == {**before.get("annotations", {}), "example.com/a": "b"}
    assert container(changed, name)["env"] == [*container(objects, name)["env"], variable]


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_an_image_may_be_a_digest(render: Render, component: str) -> None:
    changed = render(f'{component}.image="{DIGEST}"', 'image.tag="other"')
    assert container(changed, f"rerank-{component}")["image"] == DIGEST
    (test,) = [item for item in changed if item["kind"] == "Pod"]
    asked = DIGEST if component == "gateway" else "rerank-gateway:other"
    assert test["spec"]["containers"][0]["image"] == asked, "the test runs on the gateway's image"


def test_pull_secrets_are_for_every_pod(render: Render) -> None:
    secrets = [{"name": "registry"}]
    changed = render(f"imagePullSecrets={json.dumps(secrets)}")
    assert [pod(changed, name)["imagePullSecrets"] for name in PROGRAMS] == [secrets, secrets]
    (test,) = [item for item in changed if item["kind"] == "Pod"]
    assert test["spec"]["imagePullSecrets"] == secrets


@pytest.mark.parametrize("values", [(), ('watchNamespaces=["team"]',)])
@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_an_account_may_be_somebody_else_s(render: Render, component: str, values: tuple[str, ...]) -> None:
    changed = render(f'{component}.serviceAccount={{"create":false,"name":"theirs"}}', *values)
    accounts = {item["metadata"]["name"] for item in changed if item["kind"] == "ServiceAccount"}
    assert accounts == {"rerank-operator", "rerank-gateway"} - {f"rerank-{component}"}
    assert pod(changed, f"rerank-{component}")["serviceAccountName"] == "theirs"
    subjects = [
        item["subjects"][0]["name"]
        for item in changed
        if item["kind"] in ("ClusterRoleBinding", "RoleBinding")
        and item["roleRef"]["name"].startswith(f"rerank-{component}")
    ]
    assert set(subjects) == {"theirs"}


def test_an_account_that_is_made_may_have_annotations(render: Render) -> None:
    changed = render('operator.serviceAccount.annotations={"example.com/role":"reader"}')
    assert one(changed, "ServiceAccount", "rerank-operator")["metadata"]["annotations"] == {
        "example.com/role": "reader"
    }


def test_the_backend_token_may_be_somebody_else_s(render: Render) -> None:
    changed = render('backendToken.existingSecret="vault-token"')
    for name in PROGRAMS:
        (secret,) = [volume["secret"] for volume in pod(changed, name)["volumes"] if "secret" in volume]
        assert secret["secretName"] == "vault-token"
        assert not secret.get("optional"), "a pod waits for a Secret that is named"
    assert env(changed, "rerank-operator")["RERANK_BACKEND_TOKEN_SECRET"] == "vault-token"
    own = one(changed, "Role", "rerank-operator-self")["rules"]
    assert [rule["resources"] for rule in own if "secrets" in rule["resources"]] == []


def test_spread_is_over_the_pods_of_the_component(render: Render) -> None:
    rule = {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    own = {**rule, "labelSelector": {"matchLabels": {"a": "b"}}}
    changed = render(f"operator.topologySpreadConstraints={json.dumps([rule, own])}")
    labels = one(changed, "Deployment", "rerank-operator")["spec"]["selector"]["matchLabels"]
    assert pod(changed, "rerank-operator")["topologySpreadConstraints"] == [
        {**rule, "labelSelector": {"matchLabels": labels}},
        own,
    ]
    assert "topologySpreadConstraints" not in pod(render("gateway.topologySpreadConstraints=[]"), PROGRAMS[1])


def test_a_chart_of_another_version_replaces_no_pod(helm: Path, objects: Objects, tmp_path: Path) -> None:
    """With the images that run: labels of the objects change, the pods' templates do not."""
    chart = tmp_path / "rerank-operator"
    shutil.copytree(CHART, chart)
    metadata = chart / "Chart.yaml"
    text = metadata.read_text()
    assert "version: 0.1.0\nappVersion: 0.1.0" in text
    metadata.write_text(
        text.replace("version: 0.1.0\nappVersion: 0.1.0", "version: 0.2.0\nappVersion: 0.2.0")
    )
    options = ["--kube-version", KUBE_VERSION, "--namespace", NAMESPACE, "--set", "image.tag=0.1.0"]
    command: list[str | Path] = [helm, "template", *options, "rerank-operator", chart]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    later = [item for item in yaml.safe_load_all(rendered) if item]
    for name in PROGRAMS:
        assert one(later, "Deployment", name)["metadata"] != one(objects, "Deployment", name)["metadata"]
        assert template(later, name) == template(objects, name)


@pytest.mark.parametrize(
    "value",
    [
        'gateway.service.type="LoadBalancer"',
        "gateway.autoscaling.enabled=true",
        'gateway.ingress={"enabled":true,"hosts":["rerank.example.com"]}',
        'networkPolicies.egress.apiServer=["10.0.0.1/32"]',
        "monitoring.podMonitor.enabled=true",
        'test={"model":"minilm","keySecret":"search-key"}',
        "rbac.aggregateToUserRoles=false",
        "crds.install=false",
    ],
)
def test_what_does_not_concern_a_pod_replaces_none(render: Render, objects: Objects, value: str) -> None:
    changed = render(value)
    for name in PROGRAMS:
        assert template(changed, name) == template(objects, name)


def test_rendering_twice_gives_the_same(render: Render) -> None:
    """A secret or a checksum that changed by itself would replace pods with each upgrade."""
    assert render() == render()
