"""What the chart makes."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from manifests.render import CHART, CRD_COPIES, CRDS, INSTALL, NAMESPACE, install_yaml
from rerank_api import names
from rerank_api.names import GATEWAY_PEERS_LABEL, INTERNAL_PORT_NAME
from rerank_gateway import config as gateway_config
from rerank_operator import config as operator_config
from rerank_operator.policy import Policy
from tests.charts.pod_security import pod_specs, violations

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]

PROGRAMS = ("rerank-operator", "rerank-gateway")
USER_ROLES = {"rerank-view", "rerank-edit", "rerank-catalog-view"}
# The catalog belongs to no namespace.
CATALOG_ROLES = {"rerank-operator-catalog", "rerank-catalog-view"}
# Neither do nodes.
NODES_ROLE = "rerank-operator-nodes"


def one(objects: Objects, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
    (found,) = [
        item
        for item in objects
        if item["kind"] == kind
        and item["metadata"]["name"] == name
        and namespace in (None, item["metadata"].get("namespace"))
    ]
    return found


def pod(objects: Objects, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(objects, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def container(objects: Objects, name: str) -> dict[str, Any]:
    (only,) = pod(objects, name)["containers"]
    return dict(only)


def env(objects: Objects, name: str) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(objects, name)["env"] if "value" in item}


def rules_of(objects: Objects) -> list[tuple[str, dict[str, Any]]]:
    """Every rule that a workload of ours is given, with its role."""
    return [
        (f"{item['kind']}/{item['metadata']['name']}", rule)
        for item in objects
        if item["kind"] in ("Role", "ClusterRole") and item["metadata"]["name"] not in USER_ROLES
        for rule in item["rules"]
    ]


def test_lint(helm: Path) -> None:
    result = subprocess.run([helm, "lint", "--strict", CHART], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_names_are_fixed(objects: Objects) -> None:
    assert one(objects, "Service", "rerank-gateway")["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}
    ]
    assert {item["metadata"]["name"] for item in objects if item["kind"] == "Deployment"} == {
        "rerank-operator",
        "rerank-gateway",
    }


def test_the_gateways_find_one_another_ready_or_not(objects: Objects) -> None:
    peers = one(objects, "Service", "rerank-gateway-peers")
    assert peers["metadata"]["labels"]["rerank.dev/gateway-peers"] == "true"
    assert (peers["spec"]["clusterIP"], peers["spec"]["publishNotReadyAddresses"]) == ("None", True)
    (port,) = peers["spec"]["ports"]
    assert (port["name"], port["port"]) == ("internal", 8081)
    named = {found["name"]: found["containerPort"] for found in container(objects, "rerank-gateway")["ports"]}
    assert named[port["targetPort"]] == 8081


def test_every_object_has_the_standard_labels(objects: Objects) -> None:
    wanted = {
        f"app.kubernetes.io/{label}" for label in ("name", "instance", "version", "part-of", "managed-by")
    }
    missing = {
        f"{item['kind']}/{item['metadata']['name']}": wanted - item["metadata"].get("labels", {}).keys()
        for item in objects
        if item["kind"] != "CustomResourceDefinition"
    }
    assert {name: absent for name, absent in missing.items() if absent} == {}


def test_namespaced_objects_are_in_the_release_namespace(objects: Objects) -> None:
    cluster_wide = {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    namespaces = {item["metadata"].get("namespace") for item in objects if item["kind"] not in cluster_wide}
    assert namespaces == {NAMESPACE}


def test_every_selector_selects_its_pods_alone(objects: Objects) -> None:
    pods = {
        item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
        for item in objects
        if item["kind"] == "Deployment"
    }

    def selected(labels: dict[str, str]) -> list[str]:
        return [name for name, has in pods.items() if labels.items() <= has.items()]

    for name in pods:
        assert selected(one(objects, "Deployment", name)["spec"]["selector"]["matchLabels"]) == [name]
        for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            assert selected(one(objects, kind, name)["spec"][field]["matchLabels"]) == [name]
    spread = pod(objects, "rerank-gateway")["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    for each in spread:
        assert selected(each["labelSelector"]["matchLabels"]) == ["rerank-gateway"]
    for service in ("rerank-gateway", "rerank-gateway-peers"):
        assert selected(one(objects, "Service", service)["spec"]["selector"]) == ["rerank-gateway"]


def test_every_pod_is_restricted(objects: Objects) -> None:
    found = {name: violations(spec) for name, spec in pod_specs(objects)}
    assert found == {"Deployment/rerank-operator": [], "Deployment/rerank-gateway": [], "Pod/rerank-test": []}


def test_pods_run_on_a_small_node(objects: Objects) -> None:
    requests = [container(objects, name)["resources"]["requests"] for name in PROGRAMS]
    assert sum(int(request["cpu"].removesuffix("m")) for request in requests) <= 200
    assert sum(int(request["memory"].removesuffix("Mi")) for request in requests) <= 512


def test_tokens_are_mounted_by_the_pods_that_watch(objects: Objects) -> None:
    accounts = {
        item["metadata"]["name"]: item["automountServiceAccountToken"]
        for item in objects
        if item["kind"] == "ServiceAccount"
    }
    assert accounts == {"rerank-operator": False, "rerank-gateway": False}
    mounting = {name: spec["automountServiceAccountToken"] for name, spec in pod_specs(objects)}
    assert mounting == {
        "Deployment/rerank-operator": True,
        "Deployment/rerank-gateway": True,
        "Pod/rerank-test": False,
    }
    for name in PROGRAMS:
        assert pod(objects, name)["serviceAccountName"] == name


def test_no_rule_holds_a_wildcard(objects: Objects) -> None:
    fields = ("apiGroups", "resources", "verbs", "resourceNames", "nonResourceURLs")
    found = [
        (role, rule)
        for role, rule in rules_of(objects)
        for field in fields
        if "*" in "".join(rule.get(field, []))
    ]
    assert found == []


def test_no_rule_reads_secrets(objects: Objects) -> None:
    verbs = {
        verb for _, rule in rules_of(objects) if "secrets" in rule["resources"] for verb in rule["verbs"]
    }
    assert verbs
    assert not verbs & {"get", "list", "watch", "deletecollection"}


def test_no_rule_leads_around_the_others(objects: Objects) -> None:
    """Rights that amount to more rights: running code in pods, tokens of accounts, roles."""
    reach = {resource for _, rule in rules_of(objects) for resource in rule["resources"]}
    dangerous = {
        "pods/exec",
        "pods/attach",
        "pods/portforward",
        "serviceaccounts",
        "serviceaccounts/token",
        "roles",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
        "nodes/proxy",
    }
    assert not reach & dangerous
    verbs = {verb for _, rule in rules_of(objects) for verb in rule["verbs"]}
    assert not verbs & {"bind", "escalate", "impersonate"}


def test_the_gateway_only_watches(objects: Objects) -> None:
    rules = one(objects, "ClusterRole", "rerank-gateway")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"list", "watch"}
    assert {resource for rule in rules for resource in rule["resources"]} == {
        "apikeys",
        "modeldeployments",
        "endpointslices",
    }


def test_with_named_namespaces_nothing_is_cluster_wide(objects: Objects, render: Render) -> None:
    named = render('watchNamespaces=["team-a","team-b"]')
    cluster_wide = {
        item["metadata"]["name"] for item in named if item["kind"] in ("ClusterRole", "ClusterRoleBinding")
    }
    assert cluster_wide == USER_ROLES | CATALOG_ROLES
    for name in CATALOG_ROLES:
        (rule,) = one(named, "ClusterRole", name)["rules"]
        assert rule["resources"] == ["catalogmodels"]
    for component in PROGRAMS:
        expected = one(objects, "ClusterRole", component)["rules"]
        for namespace in ("team-a", "team-b"):
            assert one(named, "Role", component, namespace)["rules"] == expected
            binding = one(named, "RoleBinding", component, namespace)
            assert binding["roleRef"]["name"] == component
            assert binding["subjects"] == [
                {"kind": "ServiceAccount", "name": component, "namespace": NAMESPACE}
            ]
        assert env(named, component)["RERANK_WATCH_NAMESPACES"] == "team-a,team-b"
        assert env(objects, component)["RERANK_WATCH_NAMESPACES"] == ""


def test_a_release_may_do_without_cluster_roles(objects: Objects, render: Render) -> None:
    confined = render('watchNamespaces=["team-a"]', "rbac.clusterRoles=false", "crds.install=false")
    kinds = {item["kind"] for item in confined}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for component in PROGRAMS:
        expected = one(objects, "ClusterRole", component)["rules"]
        assert one(confined, "Role", component, "team-a")["rules"] == expected
    assert env(confined, "rerank-operator")["RERANK_CATALOG_MODELS"] == "false"
    assert "RERANK_CATALOG_MODELS" not in env(objects, "rerank-operator")


def test_the_gateway_finds_the_others_in_any_case(objects: Objects, render: Render) -> None:
    for made in (objects, render('watchNamespaces=["team-a"]')):
        (name,) = [item for item in container(made, "rerank-gateway")["env"] if "valueFrom" in item]
        assert name == {
            "name": "RERANK_NAMESPACE",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        }
        peers = one(made, "Service", "rerank-gateway-peers")
        assert peers["metadata"]["labels"][GATEWAY_PEERS_LABEL] == "true"
        assert peers["spec"]["publishNotReadyAddresses"] is True
        (port,) = peers["spec"]["ports"]
        assert port["name"] == INTERNAL_PORT_NAME
    (rule,) = one(made, "Role", "rerank-gateway-peers", NAMESPACE)["rules"]
    assert (rule["resources"], rule["verbs"]) == (["endpointslices"], ["list", "watch"])


def test_nodes_are_read_where_the_whole_cluster_is_served(objects: Objects, render: Render) -> None:
    (rule,) = one(objects, "ClusterRole", NODES_ROLE)["rules"]
    assert (rule["resources"], rule["verbs"]) == (["nodes"], ["list"])
    named = render('watchNamespaces=["team-a"]')
    assert NODES_ROLE not in {item["metadata"]["name"] for item in named}
    assert "nodes" not in {resource for _, rule in rules_of(named) for resource in rule["resources"]}


def test_network_policies_are_deleted_only_where_they_are_not_wanted(
    objects: Objects, render: Render
) -> None:
    without = render("networkPolicies.enabled=false")
    for found, told, verbs in (
        (objects, "true", ["get", "create", "patch"]),
        (without, "false", ["get", "delete"]),
    ):
        assert env(found, "rerank-operator")["RERANK_NETWORK_POLICIES"] == told
        (rule,) = [rule for _, rule in rules_of(found) if "networkpolicies" in rule["resources"]]
        assert rule["verbs"] == verbs


def test_the_pods_of_the_gateway_and_the_operator_are_those_that_policies_let_in(objects: Objects) -> None:
    for component in (names.GATEWAY, names.OPERATOR):
        template = one(objects, "Deployment", component)["spec"]["template"]
        assert template["metadata"]["labels"][names.NAME_LABEL] == component


def test_every_binding_leads_to_a_role_and_an_account(objects: Objects) -> None:
    names = {(item["kind"], item["metadata"]["name"]) for item in objects}
    for item in objects:
        if item["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            assert (item["roleRef"]["kind"], item["roleRef"]["name"]) in names
            if item["metadata"]["name"] == "rerank-catalog-view":  # for people
                assert [subject["name"] for subject in item["subjects"]] == ["system:authenticated"]
            else:
                assert {(subject["kind"], subject["name"]) for subject in item["subjects"]} <= names


def test_users_get_models_and_keys_but_not_their_status(objects: Objects, render: Render) -> None:
    view, edit = (one(objects, "ClusterRole", name) for name in ("rerank-view", "rerank-edit"))
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert "rbac.authorization.k8s.io/aggregate-to-view" in view["metadata"]["labels"]
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]
    assert "rbac.authorization.k8s.io/aggregate-to-edit" in edit["metadata"]["labels"]
    written = {resource for rule in edit["rules"] for resource in rule["resources"]}
    assert written == {"modeldeployments", "modeldeployments/scale", "apikeys"}
    without = render("rbac.aggregateToUserRoles=false")
    assert not {"rerank-view", "rerank-edit"} & {item["metadata"]["name"] for item in without}


def test_images_of_one_release_share_registry_tag_and_policy(objects: Objects, render: Render) -> None:
    assert container(objects, "rerank-gateway")["image"] == "rerank-gateway:0.1.0"
    moved = render('image={"registry":"example.com/team/","tag":"abc","pullPolicy":"Never"}')
    assert container(moved, "rerank-operator")["image"] == "example.com/team/rerank-operator:abc"
    assert container(moved, "rerank-gateway")["image"] == "example.com/team/rerank-gateway:abc"
    assert container(moved, "rerank-gateway")["imagePullPolicy"] == "Never"
    told = env(moved, "rerank-operator")
    assert told["RERANK_RUNTIME_IMAGE_CPU"] == "example.com/team/rerank-runtime:abc-cpu"
    assert told["RERANK_RUNTIME_IMAGE_CUDA"] == "example.com/team/rerank-runtime:abc-cuda"
    assert told["RERANK_IMAGE_PULL_POLICY"] == "Never"


def test_the_image_of_models_can_be_another_one(render: Render) -> None:
    reference = f"example.com:5000/vllm/rerank-runtime:1.2@sha256:{'0' * 64}"
    told = env(render(f'runtime.images.cuda="{reference}"'), "rerank-operator")
    assert told["RERANK_RUNTIME_IMAGE_CUDA"] == reference
    assert told["RERANK_RUNTIME_IMAGE_CPU"] == "rerank-runtime:0.1.0-cpu"


def test_values_reach_the_programs(render: Render) -> None:
    changed = render(
        'huggingFace.endpoint="http://hub.example.com"',
        'gateway={"replicas":3,"maxBodyBytes":20971520,"requestTimeoutSeconds":120,"drainSeconds":30,'
        '"partTokens":16384,"maxQueuedDocuments":5,"maxQueueSeconds":6,"holdSeconds":7,"maxHeldRequests":8,"scoreCacheBytes":9}',
        'gateway.logLevel="warning"',
        'operator.logLevel="error"',
    )
    assert env(changed, "rerank-operator")["RERANK_HF_ENDPOINT"] == "http://hub.example.com"
    gateway = one(changed, "Deployment", "rerank-gateway")["spec"]
    assert gateway["replicas"] == 3
    told = env(changed, "rerank-gateway")
    assert told["RERANK_MAX_BODY_BYTES"] == "20971520"
    assert told["RERANK_REQUEST_TIMEOUT_SECONDS"] == "120"
    assert told["RERANK_DRAIN_SECONDS"] == "30"
    assert told["RERANK_PART_TOKENS"] == "16384"
    assert told["RERANK_MAX_QUEUED_DOCUMENTS"] == "5"
    assert told["RERANK_MAX_QUEUE_SECONDS"] == "6"
    assert told["RERANK_HOLD_SECONDS"] == "7"
    assert told["RERANK_MAX_HELD_REQUESTS"] == "8"
    assert told["RERANK_SCORE_CACHE_BYTES"] == "9"
    assert told["RERANK_LOG_LEVEL"] == "warning"
    assert env(changed, "rerank-operator")["RERANK_LOG_LEVEL"] == "error"


def test_the_operator_reads_what_the_chart_tells(render: Render) -> None:
    told = env(render('watchNamespaces=["team-b","team-a"]', "rbac.clusterRoles=false"), "rerank-operator")
    by_field = {"RERANK_NAMESPACE": NAMESPACE, "RERANK_POD_NAME": "rerank-operator-0"}
    settings = operator_config.from_environment({**told, **by_field})
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.runtime_image_cpu == "rerank-runtime:0.1.0-cpu"
    assert settings.gateway_url == f"http://rerank-gateway.{NAMESPACE}/v1/rerank"
    assert settings.hub_endpoint is None
    assert (settings.gateways_host, settings.gateways_port) == (f"rerank-gateway-peers.{NAMESPACE}", 8081)
    assert (settings.usage_poll_seconds, settings.usage_write_seconds) == (10, 60)
    assert settings.policy == Policy()
    assert settings.catalog_models is False
    # Nothing is set that the program would silently ignore.
    read = recorded(operator_config.from_environment, {**told, **by_field})
    assert read >= told.keys()


def test_the_gateway_reads_what_the_chart_tells(render: Render) -> None:
    told = env(
        render(
            "gateway.maxBodyBytes=20971520",
            "gateway.maxInFlightBytes=52428800",
            "gateway.drainSeconds=30",
            "gateway.authMaxStalenessSeconds=120",
            "gateway.accessLogSample=0.05",
        ),
        "rerank-gateway",
    )
    settings = gateway_config.from_environment(told)
    assert settings.namespaces == ()
    assert settings.max_body_bytes == 20971520
    assert settings.max_in_flight_bytes == 52428800
    assert settings.drain_seconds == 30
    assert settings.auth_max_staleness_seconds == 120
    assert settings.request_timeout_seconds == 60
    assert settings.access_log_sample == 0.05
    assert (settings.usage_wait_seconds, settings.metrics_keys) == (15, 1000)
    assert recorded(gateway_config.from_environment, told) >= told.keys()


def recorded(read: Callable[[Mapping[str, str]], object], told: Mapping[str, str]) -> set[str]:
    """The names of the variables that a program looks at."""

    class Recording(dict[str, str]):
        names: ClassVar[set[str]] = set()

        def get(self, key: str, default: Any = None) -> Any:
            self.names.add(key)
            return super().get(key, default)

        def __getitem__(self, key: str) -> str:
            self.names.add(key)
            return super().__getitem__(key)

    read(Recording(told))
    return Recording.names


@pytest.mark.parametrize(("timeout", "drain", "usage"), [(60, 15, 15), (600, 30, 60), (1, 0, 0)])
def test_a_gateway_may_finish_what_it_began(render: Render, timeout: int, drain: int, usage: int) -> None:
    made = render(
        f"gateway.requestTimeoutSeconds={timeout}",
        f"gateway.drainSeconds={drain}",
        f"gateway.usageWaitSeconds={usage}",
    )
    grace = one(made, "Deployment", "rerank-gateway")["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    assert grace >= timeout + drain + usage + 5


def test_a_rollout_of_the_gateway_never_has_fewer_replicas(objects: Objects) -> None:
    strategy = one(objects, "Deployment", "rerank-gateway")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_the_backend_token_is_mounted_where_the_programs_look(objects: Objects) -> None:
    optional = {}
    for name in PROGRAMS:
        (volume,) = [volume for volume in pod(objects, name)["volumes"] if "secret" in volume]
        assert volume["secret"]["secretName"] == "rerank-backend-token"
        mounts = container(objects, name)["volumeMounts"]
        (mount,) = [mount for mount in mounts if mount["name"] == volume["name"]]
        assert env(objects, name)["RERANK_BACKEND_TOKEN_FILE"] == mount["mountPath"] + "/master"
        optional[name] = volume["secret"].get("optional", False)
    assert optional == {"rerank-operator": True, "rerank-gateway": False}


def test_the_crds_of_the_chart_are_those_of_the_repository(objects: Objects, render: Render) -> None:
    wanted = {path.name: path.read_text() for path in CRDS.glob("*.yaml")}
    assert {path.name: path.read_text() for path in CRD_COPIES.glob("*.yaml")} == wanted, (
        "run: make manifests"
    )
    rendered = {
        item["metadata"]["name"]: item for item in objects if item["kind"] == "CustomResourceDefinition"
    }
    assert rendered.keys() == {
        "modeldeployments.rerank.dev",
        "apikeys.rerank.dev",
        "catalogmodels.rerank.dev",
    }
    for source in map(yaml.safe_load, wanted.values()):
        kept = rendered[source["metadata"]["name"]]
        assert kept["metadata"].pop("annotations")["helm.sh/resource-policy"] == "keep"
        assert kept == {
            **source,
            "metadata": {k: v for k, v in source["metadata"].items() if k != "annotations"},
        }
    kinds = {item["kind"] for item in render("crds.install=false")}
    assert "CustomResourceDefinition" not in kinds
    assert "Deployment" in kinds


def test_install_yaml_is_what_the_chart_renders(helm: Path) -> None:
    assert INSTALL.read_text() == install_yaml(helm), "run: make manifests"
    first = next(yaml.safe_load_all(INSTALL.read_text()))
    assert first["kind"] == "Namespace"
    assert first["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
