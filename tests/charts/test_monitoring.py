"""Alerts and dashboard: they ask of metrics that there are, and alerts fire when their sentence is true."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from manifests.dashboard import dashboard
from manifests.render import CHART, DASHBOARD
from rerank_operator.health import Metrics
from tests.charts.promtool import promtool
from tests.charts.test_chart import one
from tests.rerank_gateway.harness import running

Render = Callable[..., list[dict[str, Any]]]

ALERTS = CHART / "files" / "monitoring" / "alerts.yaml"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
# What Prometheus adds to what it scrapes by the PodMonitor.
TARGET_LABELS = {"job", "namespace", "pod", "instance"}
NAME = re.compile(r"\brerank_(?:gateway|operator)_\w+")
# A metric with its matchers, and the labels that a query groups by.
SELECTOR = re.compile(r"\b(rerank_(?:gateway|operator)_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|on) ?\(([^)]*)\)")


def labels_by_series(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Each series' name that a registry exports, with its labels."""
    found: dict[str, set[str]] = {}
    for collector in list(registry._collector_to_names):
        for family in collector.collect():
            # Of our own collectors the families know them, of prometheus_client's the metrics.
            labels = set(getattr(collector, "_labelnames", getattr(family, "_labelnames", ())))
            for suffix in SUFFIXES[family.type]:
                le = {"le"} if suffix == "_bucket" else set()
                found[family.name + suffix] = labels | le | TARGET_LABELS
    return found


@pytest.fixture
async def series() -> dict[str, set[str]]:
    """What a running gateway and the operator export."""
    async with running() as gateway:
        found = labels_by_series(gateway.gateway._metrics.registry)
    return found | labels_by_series(Metrics().registry)


def queries() -> Iterator[tuple[str, str]]:
    """Every query with where it stands."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    body = json.loads(DASHBOARD.read_text())
    for panel in body["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in body["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


def test_every_metric_that_is_asked_of_is_exported(series: dict[str, set[str]]) -> None:
    asked = {name: where for where, query in queries() for name in NAME.findall(query)}
    assert asked
    assert {name: where for name, where in asked.items() if name not in series} == {}


def test_every_label_that_is_asked_of_is_there(series: dict[str, set[str]]) -> None:
    wrong = []
    for where, query in queries():
        available: set[str] = set()
        for name, matchers in SELECTOR.findall(query):
            labels = series[name]
            available |= labels
            named = set(re.findall(r"(\w+) ?(?:=~|!~|!=|=)", matchers))
            wrong += [(where, name, label) for label in named - labels]
        grouped = {label.strip() for group in GROUPING.findall(query) for label in group.split(",")}
        if NAME.search(query):
            wrong += [(where, "grouping", label) for label in grouped - available]
    assert wrong == []


def test_the_rules_are_rules() -> None:
    result = subprocess.run(
        [promtool(), "check", "rules", "--lint-fatal", ALERTS], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_alerts_fire_when_they_should_and_only_then() -> None:
    cases = Path(__file__).with_name("alerts_test.yaml")
    result = subprocess.run([promtool(), "test", "rules", cases], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    tested = set(re.findall(r'alertname="(\w+)"', cases.read_text()))
    assert tested == {where for where, _ in queries() if where.startswith("Rerank")}


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"].keys() == {"summary", "description", "runbook"}, rule["alert"]
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["alert"].startswith("Rerank")


def test_the_dashboard_is_what_its_table_says() -> None:
    assert DASHBOARD.read_text() == dashboard(), "run: make manifests"


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken.get((x, y)))
                taken[x, y] = panel["title"]


def test_rules_and_dashboard_reach_the_cluster_as_they_are(render: Render) -> None:
    made = render(
        'monitoring.alerts={"enabled":true,"labels":{"release":"prometheus"}}',
        'monitoring.dashboard={"enabled":true,"annotations":{"grafana_folder":"Search"}}',
    )
    rule = one(made, "PrometheusRule", "rerank-operator")
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    folder = one(made, "ConfigMap", "rerank-dashboard")
    assert folder["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert folder["metadata"]["annotations"] == {"grafana_folder": "Search"}
    assert json.loads(folder["data"]["rerank.json"]) == json.loads(DASHBOARD.read_text())
