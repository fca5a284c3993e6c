"""values.yaml and values.schema.json: what may be set, and what is refused."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manifests import values_table
from manifests.render import CHART, ROOT, template_command

SET = re.compile(r"--set ('[^']+'|\S+)")
APOSTROPHE = "'"
VALUES = CHART / "values.yaml"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ('gatway={"replicas": 3}', "gatway"),
        ("gateway.replica=3", "replica"),
        ('image.registy="example.com/"', "registy"),
        ("gateway.service.nodePort=30080", "nodePort"),
        ("crds.keep=true", "keep"),
        ("operator.resources.request={}", "request"),
        ('huggingFace.token="secret"', "token"),
        ('nodeSelector={"disk":"fast"}', "nodeSelector"),
        ("gateway.autoscaling.minreplicas=2", "minreplicas"),
        ('gateway.ingress.host="rerank.example.com"', "host"),
        ('gateway.httpRoute.parentRefs=[{"name":"public","listener":"https"}]', "listener"),
        ('networkPolicies.clients=[{"podSelectors":{}}]', "podSelectors"),
        ('operator.affinity={"antiAffinity":{}}', "antiAffinity"),
        ('gateway.extraEnv=[{"name":"A","val":"b"}]', "val"),
        ('imagePullSecrets=[{"secret":"registry"}]', "secret"),
    ],
)
def test_a_misspelt_value_is_refused_by_its_name(render_text: Run, value: str, named: str) -> None:
    result = render_text(value)
    assert result.returncode != 0
    assert f"'{named}'" in result.stderr
    assert "additional properties" in result.stderr.lower()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ('gateway.replicas="2"', "/gateway/replicas"),
        ("gateway.replicas=-1", "/gateway/replicas"),
        ("gateway.replicas=1.5", "/gateway/replicas"),
        ("gateway.maxBodyBytes=10", "/gateway/maxBodyBytes"),
        ("gateway.authMaxStalenessSeconds=0", "/gateway/authMaxStalenessSeconds"),
        ("gateway.requestTimeoutSeconds=0", "/gateway/requestTimeoutSeconds"),
        ('gateway.service.type="Loadbalancer"', "/gateway/service/type"),
        ("gateway.accessLogSample=2", "/gateway/accessLogSample"),
        ("operator.usage.pollSeconds=0", "/operator/usage/pollSeconds"),
        ('image.pullPolicy="ifNotPresent"', "/image/pullPolicy"),
        ('image.registry="example.com/team"', "/image/registry"),
        ('image.tag="not a tag"', "/image/tag"),
        ('runtime.images.cpu="not an image"', "/runtime/images/cpu"),
        ('huggingFace.endpoint="hub.example.com"', "/huggingFace/endpoint"),
        ('policy.remoteCode=["org/name"]', "/policy/remoteCode/0"),
        ('policy.remoteCode=["org/name@main"]', "/policy/remoteCode/0"),
        ('policy.remoteCode="org/name"', "/policy/remoteCode"),
        ('policy.images=["not an image"]', "/policy/images/0"),
        ('policy.extraArgs=["--max-num-seqs=4"]', "/policy/extraArgs/0"),
        ('policy.hubEndpoints=["hub.example.com"]', "/policy/hubEndpoints"),
        ('policy.licenses="MIT"', "/policy/licenses"),
        ("policy.maxReplicas=-1", "/policy/maxReplicas"),
        ('catalog.install="yes"', "/catalog/install"),
        ('networkPolicies.enabled="no"', "/networkPolicies/enabled"),
        ('watchNamespaces="team-a"', "/watchNamespaces"),
        ('watchNamespaces=["Team_A"]', "/watchNamespaces/0"),
        ('watchNamespaces=["a","a"]', "/watchNamespaces"),
        ('operator.resources.limits.memory="512 MB"', "/operator/resources/limits/memory"),
        ('operator.tolerations=[{"key":"gpu","effect":"NoStart"}]', "/operator/tolerations/0/effect"),
        ('imagePullSecrets=["registry"]', "/imagePullSecrets/0"),
        ('rbac.clusterRoles="false"', "/rbac/clusterRoles"),
        ('backendToken.existingSecret="My Secret"', "/backendToken/existingSecret"),
        ('operator.image="rerank-operator:a b"', "/operator/image"),
        ('operator.logLevel="debug"', "/operator/logLevel"),
        ("gateway.podAnnotations.port=8081", "/gateway/podAnnotations/port"),
        ("gateway.nodeSelector.gpu=true", "/gateway/nodeSelector/gpu"),
        ('gateway.topologySpreadConstraints=[{"maxSkew":1}]', "/gateway/topologySpreadConstraints/0"),
        ("gateway.autoscaling.minReplicas=0", "/gateway/autoscaling/minReplicas"),
        ("gateway.autoscaling.targetCPUMillicores=1500", "/gateway/autoscaling/targetCPUMillicores"),
        ('gateway.ingress.hosts="rerank.example.com"', "/gateway/ingress/hosts"),
        ('gateway.ingress.hosts=["https://rerank.example.com"]', "/gateway/ingress/hosts/0"),
        ('gateway.httpRoute.parentRefs=[{"namespace":"gateways"}]', "/gateway/httpRoute/parentRefs/0"),
        ('networkPolicies.egress.apiServer=["10.0.0.1"]', "/networkPolicies/egress/apiServer/0"),
        ("monitoring.podMonitor.interval=30", "/monitoring/podMonitor/interval"),
        ('monitoring.alerts.enabled="on"', "/monitoring/alerts/enabled"),
        ("monitoring.dashboard.labels.grafana_dashboard=1", "/monitoring/dashboard/labels/grafana_dashboard"),
        ("test.model=1", "/test/model"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(render_text: Run, value: str, path: str) -> None:
    result = render_text(value)
    assert result.returncode != 0
    assert path in result.stderr or path.strip("/").replace("/", ".") in result.stderr


def test_every_value_is_commented() -> None:
    """Groups are commented by their members."""
    bare = [".".join(value.path) for value in values_table.read(VALUES.read_text()) if not value.comment]
    assert bare == []


def test_schema_and_values_name_the_same_things() -> None:
    """Down to what the values file comments: what is below is Kubernetes' own, or free."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    paths = {value.path for value in values_table.read(VALUES.read_text())}

    def named(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for key, value in node.get("properties", {}).items():
            here = (*path, key)
            reference = value.get("$ref", "").rpartition("/")[2]
            inner = schema["definitions"][reference] if reference else value
            if here in paths or "properties" not in inner:
                yield here
            else:
                yield from named(inner, here)

    assert set(named(schema)) - {("global",)} == paths


def test_the_readme_lists_every_value() -> None:
    readme = (CHART / "README.md").read_text()
    assert readme == values_table.with_table(readme, VALUES.read_text()), "run: make manifests"


def test_every_object_of_the_schema_is_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def open_objects(node: Any, path: str = "") -> Iterator[str]:
        if isinstance(node, dict):
            if node.get("type") == "object" and "additionalProperties" not in node:
                yield path
            for key, value in node.items():
                yield from open_objects(value, f"{path}/{key}")

    # Helm itself puts "global" into the values of a dependency.
    assert list(open_objects(schema)) == ["/properties/global"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["rbac.clusterRoles=false"], "name them in watchNamespaces"),
        (["gateway.serviceAccount.create=false"], "set gateway.serviceAccount.name"),
        (['gateway.serviceAccount.name="rerank-operator"'], "one account would have the rights of both"),
        (
            ["operator.usage.pollSeconds=26"],
            "At most gateway.drainSeconds + gateway.usageWaitSeconds - 5, which is 25;",
        ),
        (["gateway.drainSeconds=0", "gateway.usageWaitSeconds=14"], "operator.usage.pollSeconds is too long"),
        (
            ["gateway.autoscaling.enabled=true", "gateway.autoscaling.minReplicas=11"],
            "gateway.autoscaling.minReplicas is larger",
        ),
        (
            ["gateway.maxBodyBytes=104857600"],
            "gateway.maxInFlightBytes must be at least twice gateway.maxBodyBytes",
        ),
        (["gateway.ingress.enabled=true"], "gateway.ingress.hosts: name at least one host"),
        (["gateway.httpRoute.enabled=true"], "gateway.httpRoute.parentRefs: name the Gateway"),
        (['test.model="minilm"'], "test.model and test.keySecret go together"),
    ],
)
def test_values_that_make_no_sense_together_are_refused(
    render_text: Run, values: list[str], told: str
) -> None:
    result = render_text(*values)
    assert result.returncode != 0
    assert told in result.stderr


@pytest.mark.parametrize(
    "values",
    [
        ["operator.usage.pollSeconds=25"],
        ["operator.usage.pollSeconds=60", "gateway.usageWaitSeconds=0"],
        ["operator.usage.pollSeconds=60", "gateway.drainSeconds=50"],
    ],
)
def test_usage_is_polled_as_seldom_as_nothing_is_lost(render_text: Run, values: list[str]) -> None:
    result = render_text(*values)
    assert result.returncode == 0, result.stderr


def documented() -> list[list[str]]:
    """The `--set` options of each block of commands in the documentation."""
    found = []
    for page in [ROOT / "README.md", CHART / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            values = [value.strip(APOSTROPHE) for value in SET.findall(block)]
            options = [f"--set={value.replace('$REGISTRY', 'registry.example.com/team')}" for value in values]
            if options:
                found.append(options)
    return found


@pytest.mark.parametrize("options", documented(), ids=" ".join)
def test_documented_commands_set_what_there_is(helm: Path, options: list[str]) -> None:
    command = [*template_command(helm), *options]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
