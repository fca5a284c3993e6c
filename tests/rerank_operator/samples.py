"""Resources and pods for the tests: small, and complete where it counts."""

import json
from dataclasses import replace
from typing import Any

from rerank_api.effective import effective
from rerank_api.model_deployment import ModelDeployment
from rerank_operator import rollout
from rerank_operator.builders.deployment import PodSettings, deployment, pod_template
from rerank_operator.builders.source import Source, source_of
from rerank_operator.pod_status import Report
from rerank_operator.pods import Container, Ending, Pod, TerminationMessage
from rerank_operator.situation import Obstacle, Situation, assess

COMMIT = "c" * 40
TEMPLATE = "t" * 16

SETTINGS = PodSettings(
    image_cpu="registry.example/rerank-runtime:0.1.0-cpu",
    image_cuda="registry.example/rerank-runtime:0.1.0-cuda",
    image_pull_policy="IfNotPresent",
    token_hash="0" * 64,
)


def model(*, name: str = "minilm", status: dict[str, Any] | None = None, **spec: Any) -> ModelDeployment:
    """A ModelDeployment as the API server returns it."""
    spec.setdefault("model", {"huggingFace": {"repo": "org/name"}})
    return ModelDeployment.parse(
        {
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": "u-1",
                "generation": 3,
                "resourceVersion": "7",
            },
            "spec": spec,
            "status": status or {},
        }
    )


def ended(code: int = 1, *, reason: str = "Error", told: str = "", message: str = "") -> Ending:
    """A container's end; `told` is the reason in our termination message."""
    return Ending(code, reason, TerminationMessage(reason=told, message=message) if told else None)


DONE = Container(state="terminated", ending=Ending(0, "Completed"))
RUNNING = Container(state="running")


def pod(name: str = "p1", **changes: Any) -> Pod:
    """A scheduled pod of the newest template whose download runs."""
    base = Pod(name=name, uid=f"uid-{name}", ip="10.0.0.1", template=TEMPLATE, scheduled=True, fetch=RUNNING)
    return replace(base, **changes)


def serving(name: str = "p1", **changes: Any) -> Pod:
    """A pod that is ready."""
    return pod(name, **{"fetch": DONE, "serve": RUNNING, "ready": True, **changes})


def report(phase: str = "Ready", **parts: Any) -> Report:
    return Report.model_validate({"phase": phase, **parts})


def situation(
    *pods: Pod,
    of: ModelDeployment | None = None,
    obstacle: Obstacle | None = None,
    commit: str | None = COMMIT,
    overdue: bool = False,
) -> Situation:
    """The situation of `of` (one replica of a repository, if not given) with these pods."""
    of = of or model()
    return assess(
        of,
        effective=effective(of.spec),
        source=source_of(of, hub_endpoint=None),
        commit=commit,
        template=TEMPLATE,
        pods=pods,
        obstacle=obstacle,
        overdue=overdue,
    )


def termination(reason: str, message: str) -> str:
    return json.dumps({"reason": reason, "message": message, "retriable": False})


def built(of: ModelDeployment) -> dict[str, Any]:
    """The Deployment of `of` while nothing is replaced."""
    found = effective(of.spec)
    source = source_of(of, hub_endpoint=None, remote_code=found.engine.trust_remote_code)
    template = pod_template(of, effective=found, source=source, settings=SETTINGS)
    return deployment(of, template=template, strategy=rollout.SURGE)


def source(of: ModelDeployment) -> Source:
    return source_of(of, hub_endpoint=None)
