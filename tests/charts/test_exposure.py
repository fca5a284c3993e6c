"""The ways to the gateway, who may take them, and how many replicas wait there."""

import json
from collections.abc import Callable
from typing import Any

from tests.charts.test_chart import one

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]

OPTIONAL = {"HorizontalPodAutoscaler", "Ingress", "HTTPRoute", "PodMonitor", "PrometheusRule"}


def test_nothing_optional_is_made_by_default(objects: Objects) -> None:
    assert OPTIONAL.isdisjoint(item["kind"] for item in objects)


def test_an_autoscaler_owns_the_number_of_replicas(render: Render) -> None:
    scaled = render('gateway.autoscaling={"enabled":true,"minReplicas":3,"maxReplicas":20}')
    assert "replicas" not in one(scaled, "Deployment", "rerank-gateway")["spec"]
    autoscaler = one(scaled, "HorizontalPodAutoscaler", "rerank-gateway")["spec"]
    assert autoscaler["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "rerank-gateway",
    }
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (3, 20)
    (metric,) = autoscaler["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "700m"}}


def test_an_ingress_leads_to_the_service(render: Render) -> None:
    hosts = ["rerank.example.com", "*.rerank.example.com"]
    values = {
        "enabled": True,
        "className": "nginx",
        "hosts": hosts,
        "tlsSecret": "rerank-tls",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "10m"},
    }
    made = one(render(f"gateway.ingress={json.dumps(values)}"), "Ingress", "rerank-gateway")
    assert made["metadata"]["annotations"] == values["annotations"]
    assert made["spec"]["ingressClassName"] == "nginx"
    assert made["spec"]["tls"] == [{"secretName": "rerank-tls", "hosts": hosts}]
    assert [rule["host"] for rule in made["spec"]["rules"]] == hosts
    for rule in made["spec"]["rules"]:
        assert rule["http"]["paths"] == [
            {
                "path": "/",
                "pathType": "Prefix",
                "backend": {"service": {"name": "rerank-gateway", "port": {"name": "http"}}},
            }
        ]


def test_an_ingress_may_leave_class_and_certificate_to_the_cluster(render: Render) -> None:
    values = {"enabled": True, "hosts": ["rerank.example.com"]}
    spec = one(render(f"gateway.ingress={json.dumps(values)}"), "Ingress", "rerank-gateway")["spec"]
    assert spec.keys() == {"rules"}


def test_a_route_attaches_to_a_listener(render: Render) -> None:
    parents = [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    values = {"enabled": True, "parentRefs": parents, "hostnames": ["rerank.example.com"]}
    made = one(render(f"gateway.httpRoute={json.dumps(values)}"), "HTTPRoute", "rerank-gateway")
    assert made["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert made["spec"] == {
        "parentRefs": parents,
        "hostnames": ["rerank.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "rerank-gateway", "port": 80}],
            }
        ],
    }


def ports(objects: Objects, name: str, direction: str) -> dict[int, Any]:
    """The other side of each port that a policy opens, None where it is everybody."""
    peers = {"ingress": "from", "egress": "to"}[direction]
    found: dict[int, Any] = {}
    for rule in one(objects, "NetworkPolicy", name)["spec"].get(direction, []):
        for port in rule.get("ports", [{"port": 0}]):
            found[port["port"]] = rule.get(peers)
    return found


def test_everybody_may_call_and_few_may_look_inside(objects: Objects) -> None:
    gateway = ports(objects, "rerank-gateway", "ingress")
    assert gateway.keys() == {8080, 8081}
    assert gateway[8080] is None
    operator, peers, monitoring = gateway[8081]
    for peer, name in ((operator, "rerank-operator"), (peers, "rerank-gateway")):
        labels = one(objects, "Deployment", name)["spec"]["selector"]["matchLabels"]
        assert peer == {"podSelector": {"matchLabels": labels}}
    assert monitoring == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert ports(objects, "rerank-operator", "ingress") == {8081: [monitoring]}
    for name in ("rerank-gateway", "rerank-operator"):
        assert one(objects, "NetworkPolicy", name)["spec"]["policyTypes"] == ["Ingress"]


def test_callers_and_scrapers_can_be_named(render: Render) -> None:
    clients = [{"namespaceSelector": {"matchLabels": {"team": "search"}}}]
    named = render(
        f"networkPolicies.clients={json.dumps(clients)}",
        "networkPolicies.monitoring=[]",
        'test.namespace="team"',
    )
    gateway = ports(named, "rerank-gateway", "ingress")
    *callers, test = gateway[8080]
    assert callers == clients
    pod = one(named, "Pod", "rerank-test")["metadata"]
    assert test["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": pod["namespace"]}}
    assert test["podSelector"]["matchLabels"].items() <= pod["labels"].items()
    assert test["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "rerank-test"
    assert len(gateway[8081]) == 2
    assert ports(named, "rerank-operator", "ingress") == {}
    assert one(named, "NetworkPolicy", "rerank-operator")["spec"]["policyTypes"] == ["Ingress"], "nobody"


def test_egress_is_limited_where_the_api_server_is_known(render: Render) -> None:
    collector = {"ports": [{"port": 4318}], "to": [{"namespaceSelector": {}}]}
    limited = render(
        'networkPolicies.egress.apiServer=["10.0.0.1/32","fd00::1/128"]',
        f"networkPolicies.egress.additional=[{json.dumps(collector)}]",
    )
    models = {
        "namespaceSelector": {},
        "podSelector": {"matchExpressions": [{"key": "rerank.dev/model", "operator": "Exists"}]},
    }
    for name in ("rerank-gateway", "rerank-operator"):
        spec = one(limited, "NetworkPolicy", name)["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        egress = ports(limited, name, "egress")
        assert egress[53] is None
        assert egress[0] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}, {"ipBlock": {"cidr": "fd00::1/128"}}]
        assert egress[4318] == [{"namespaceSelector": {}}]
    assert ports(limited, "rerank-gateway", "egress")[8000] == [models]
    assert models in ports(limited, "rerank-operator", "egress")[8081]
    assert 8000 not in ports(limited, "rerank-operator", "egress")


def test_policies_can_be_left_out(render: Render) -> None:
    assert "NetworkPolicy" not in {item["kind"] for item in render("networkPolicies.enabled=false")}


def test_prometheus_finds_the_internal_port_of_every_pod(render: Render) -> None:
    made = render('monitoring.podMonitor={"enabled":true,"labels":{"release":"prometheus"}}')
    monitor = one(made, "PodMonitor", "rerank-operator")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selector = monitor["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True, "the label namespace is the model's"
    for name in ("rerank-operator", "rerank-gateway"):
        template = one(made, "Deployment", name)["spec"]["template"]
        assert selector.items() <= template["metadata"]["labels"].items()
        names = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
        assert endpoint["port"] in names
