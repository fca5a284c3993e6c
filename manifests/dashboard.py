"""The Grafana dashboard of the chart, from a table of panels: what each asks, and of which metric."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

MODEL: Final = 'namespace=~"$namespace", model=~"$model"'
_COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph. `queries` are PromQL and what a line is called; `unit` as Grafana names units."""

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7


def rate(metric: str, by: str, where: str = MODEL) -> str:
    """Events a second, summed by some labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str, where: str = MODEL) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'{by}, le', where)})"


def _load(what: str) -> str:
    """What waits or runs, summed over the gateways."""
    return f"sum by (namespace, model) (rerank_gateway_{what}{{{MODEL}}})"


def _top(what: str) -> str:
    """The ten keys with most of something."""
    return f"topk(10, {rate(f'rerank_gateway_key_{what}_total', 'namespace, api_key')})"


_REQUESTS: Final = "rerank_gateway_requests_total"
_MODEL_LEGEND: Final = "{{namespace}}/{{model}}"
_FAILED: Final = (
    f'(sum(rate({_REQUESTS}{{{MODEL}, code=~"5.."}}[$__rate_interval])) or vector(0))'
    f" / sum(rate({_REQUESTS}{{{MODEL}}}[$__rate_interval]))"
)
_CACHE: Final = "rerank_gateway_score_cache_documents_total"
_CACHED: Final = (
    rate(_CACHE, "namespace, model", f'{MODEL}, outcome="hit"') + " / " + rate(_CACHE, "namespace, model")
)
_KEY_LEGEND: Final = "{{namespace}}/{{api_key}}"
_REPLICAS: Final = "rerank_operator_model_replicas"
_MISSING: Final = f"{_REPLICAS}_wanted{{{MODEL}}} - {_REPLICAS}_ready{{{MODEL}}}"

ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Is it well?": (
        Panel(
            "Requests",
            "Answered requests a second.",
            ((f"sum(rate({_REQUESTS}{{{MODEL}}}[$__rate_interval]))", ""),),
            unit="reqps",
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Failed",
            "Share of the answers that are 5xx.",
            ((_FAILED, ""),),
            unit="percentunit",
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "99th percentile",
            "From the head of a request to the end of its answer.",
            ((f"histogram_quantile(0.99, {rate('rerank_gateway_request_seconds_bucket', 'le')})", ""),),
            unit="s",
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Models by phase",
            "How many ModelDeployments are in each phase.",
            ((f"sum by (phase) (rerank_operator_model_phase{{{MODEL}}})", "{{phase}}"),),
            kind="stat",
            width=8,
            height=4,
        ),
        Panel(
            "Operator",
            "1 while an operator leads.",
            (("sum(rerank_operator_leading)", ""),),
            kind="stat",
            width=4,
            height=4,
        ),
    ),
    "Traffic": (
        Panel(
            "Requests by model",
            "Answered requests a second, whatever the answer.",
            ((rate(_REQUESTS, "namespace, model"), _MODEL_LEGEND),),
            unit="reqps",
        ),
        Panel(
            "Answers by code",
            "429: a key is over a limit. 499: the client left first. 503: no replica, or a full queue.",
            ((rate(_REQUESTS, "code"), "{{code}}"),),
            unit="reqps",
        ),
        Panel(
            "In flight",
            "Requests that are being served, by gateway.",
            (("sum by (pod) (rerank_gateway_requests_in_flight)", "{{pod}}"),),
        ),
    ),
    "Latency": (
        Panel(
            "Median",
            "Half of the requests are faster.",
            ((quantile(0.5, "rerank_gateway_request_seconds", "namespace, model"), _MODEL_LEGEND),),
            unit="s",
        ),
        Panel(
            "95th percentile",
            "One of twenty is slower.",
            ((quantile(0.95, "rerank_gateway_request_seconds", "namespace, model"), _MODEL_LEGEND),),
            unit="s",
        ),
        Panel(
            "Second attempts",
            "Requests that another replica had to take over. More than a few: a replica is unwell.",
            ((rate("rerank_gateway_backend_retries_total", "namespace, model"), _MODEL_LEGEND),),
            unit="reqps",
        ),
    ),
    "Queues": (
        Panel(
            "Wait for a replica",
            "Nine of ten requests that had to wait waited less.",
            ((quantile(0.9, "rerank_gateway_queue_wait_seconds", "namespace, model"), _MODEL_LEGEND),),
            unit="s",
            width=6,
        ),
        Panel(
            "Waiting",
            "Requests that wait for a replica to be free, and those that wait for a model to start.",
            (
                (_load("queued_requests"), _MODEL_LEGEND),
                (_load("held_requests"), f"{_MODEL_LEGEND}, starting"),
            ),
            width=6,
        ),
        Panel(
            "Tokens before and at the replicas",
            "Estimated tokens that wait, and that replicas are busy with.",
            (
                (_load("queued_tokens"), f"{_MODEL_LEGEND}, waiting"),
                (_load("running_tokens"), f"{_MODEL_LEGEND}, running"),
            ),
            width=6,
        ),
        Panel(
            "Refused and ejected",
            "Requests that would have waited too long, and replicas that were left alone after failures.",
            (
                (rate("rerank_gateway_queue_refusals_total", "namespace, model"), f"{_MODEL_LEGEND} refused"),
                (rate("rerank_gateway_ejections_total", "namespace, model"), f"{_MODEL_LEGEND} ejected"),
            ),
            unit="ops",
            width=6,
        ),
    ),
    "Work": (
        Panel(
            "Documents",
            "Documents ranked a second.",
            ((rate("rerank_gateway_documents_total", "namespace, model"), _MODEL_LEGEND),),
        ),
        Panel(
            "Tokens",
            "Tokens that models read a second: what their replicas are busy with.",
            ((rate("rerank_gateway_tokens_total", "namespace, model"), _MODEL_LEGEND),),
        ),
        Panel(
            "Score cache",
            "Share of the documents that were scored before, of models with cacheScores.",
            ((_CACHED, _MODEL_LEGEND),),
            unit="percentunit",
        ),
    ),
    "Keys": (
        Panel(
            "Requests by key",
            "The ten keys that ask most.",
            ((_top("requests"), _KEY_LEGEND),),
            unit="reqps",
            width=6,
        ),
        Panel(
            "Documents by key",
            "The ten keys that have most ranked.",
            ((_top("documents"), _KEY_LEGEND),),
            width=6,
        ),
        Panel(
            "Tokens by key",
            "The ten keys that cost most.",
            ((_top("tokens"), _KEY_LEGEND),),
            width=6,
        ),
        Panel(
            "Refused by key",
            "The ten keys that are most often over their limits: raise spec.limits, or ask who calls.",
            ((_top("rejected"), _KEY_LEGEND),),
            unit="reqps",
            width=6,
        ),
    ),
    "Models": (
        Panel(
            "Ready replicas",
            "Replicas that serve.",
            ((f"rerank_operator_model_replicas_ready{{{MODEL}}}", _MODEL_LEGEND),),
        ),
        Panel(
            "Missing replicas",
            "Replicas that should serve and do not.",
            ((_MISSING, _MODEL_LEGEND),),
        ),
        Panel(
            "Phases",
            "The phase of each model. Why: kubectl describe the ModelDeployment.",
            ((f"rerank_operator_model_phase{{{MODEL}}}", "{{namespace}}/{{model}}: {{phase}}"),),
            kind="state-timeline",
        ),
    ),
    "Gateways": (
        Panel(
            "Event loop lag",
            "99th percentile. What it is, every request waits more; over 0.1 s, add gateways.",
            ((quantile(0.99, "rerank_gateway_event_loop_lag_seconds", "pod", ""), "{{pod}}"),),
            unit="s",
            width=6,
        ),
        Panel(
            "Bodies held",
            "Bytes of requests and answers. At gateway.maxInFlightBytes, further bodies are refused.",
            (("sum by (pod) (rerank_gateway_in_flight_bytes)", "{{pod}}"),),
            unit="bytes",
            width=6,
        ),
        Panel(
            "Answers of other gateways",
            "Gateways share what keys consume; silent ones are counted as nothing.",
            ((rate("rerank_gateway_peer_answers_total", "outcome", ""), "{{outcome}}"),),
            unit="ops",
            width=6,
        ),
        Panel(
            "Age of what is known",
            "Seconds since the API server last confirmed it. Over 60 s, revoked keys may still be accepted.",
            (("max by (pod, watch) (rerank_gateway_watch_age_seconds)", "{{pod}} {{watch}}"),),
            unit="s",
            width=6,
        ),
    ),
    "Operator": (
        Panel(
            "Reconciliations",
            "Looks at resources, by kind and result.",
            ((rate("rerank_operator_reconciles_total", "kind, result", ""), "{{kind}} {{result}}"),),
            unit="ops",
            width=6,
        ),
        Panel(
            "Duration",
            "99th percentile of a look at a resource.",
            ((quantile(0.99, "rerank_operator_reconcile_seconds", "kind", ""), "{{kind}}"),),
            unit="s",
            width=6,
        ),
        Panel(
            "Waiting",
            "Resources that wait for a look. Not only for a moment: the operator is behind.",
            (("max(rerank_operator_queue_length)", "resources"),),
            width=6,
        ),
        Panel(
            "Writes",
            "By resource. None while nothing changes.",
            ((rate("rerank_operator_writes_total", "resource", ""), "{{resource}}"),),
            unit="ops",
            width=6,
        ),
    ),
    "Operator: what it hears": (
        Panel(
            "Event loop lag",
            "99th percentile. What it is, everything that the operator does is late.",
            ((quantile(0.99, "rerank_operator_loop_lag_seconds", "pod", ""), "{{pod}}"),),
            unit="s",
            width=6,
        ),
        Panel(
            "Age of watches",
            "Seconds since events could last arrive; up to 25 is usual. Over 90: they are refused.",
            (("max by (watch) (rerank_operator_watch_age_seconds)", "{{watch}}"),),
            unit="s",
            width=6,
        ),
        Panel(
            "Gateways",
            "Heard by the operator, and silent: while one is, no model is scaled down.",
            (
                ("max(rerank_operator_gateways)", "heard"),
                ("max(rerank_operator_gateways_silent)", "silent"),
            ),
            width=6,
        ),
        Panel(
            "Usage",
            "Keys whose usage waits to be written to their status.",
            (("max(rerank_operator_usage_waiting)", "keys"),),
            width=6,
        ),
    ),
}


def dashboard() -> str:
    """The dashboard as Grafana imports it."""
    body = {
        "uid": "rerank-operator",
        "title": "Rerankers",
        "description": "Traffic, errors, latency, replicas and limits of rerank-operator.",
        "tags": ["rerank-operator"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }
    return json.dumps(body, indent=1) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    for name, label, query in (
        ("namespace", "Namespace", "label_values(rerank_operator_model_phase, namespace)"),
        ("model", "Model", 'label_values(rerank_operator_model_phase{namespace=~"$namespace"}, model)'),
    ):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"text": ["All"], "value": ["$__all"]},
            "sort": 1,
        }


_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
        }
        left, top = 0, top + 1
        for panel in panels:
            number += 1
            yield _panel(panel, number, left, top)
            left += panel.width
        top += panels[0].height


def _panel(panel: Panel, number: int, left: int, top: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }
