from typing import Any

import pytest
from pydantic import ValidationError

from rerank_api.model_deployment import ModelDeployment

HUB = {"huggingFace": {"repo": "org/name"}}
CLAIM = {"persistentVolumeClaim": {"claimName": "weights"}}
IMAGE = {"image": {"reference": "registry.example.com/models@sha256:" + "0" * 64}}


def deployment(model: dict[str, Any], **spec: Any) -> ModelDeployment:
    return ModelDeployment.parse(
        {"metadata": {"name": "minilm", "namespace": "default"}, "spec": {"model": model, **spec}}
    )


@pytest.mark.parametrize("model", [{}, HUB | CLAIM, CLAIM | IMAGE])
def test_exactly_one_source(model: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"spec\.model: set exactly one"):
        deployment(model)


@pytest.mark.parametrize(
    "repo", ["name", "/name", "org/", "org/name/more", "../name", "https://host/name", "org/na me"]
)
def test_a_repository_is_org_and_name(repo: str) -> None:
    with pytest.raises(ValidationError, match="repo"):
        deployment({"huggingFace": {"repo": repo}})


@pytest.mark.parametrize("endpoint", ["hub", "ftp://host", "http://user:pw@host", "http://host?q=1"])
def test_an_endpoint_is_a_plain_url(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="endpoint"):
        deployment({"huggingFace": {"repo": "org/name", "endpoint": endpoint}})


@pytest.mark.parametrize(("written", "read"), [(2, "2"), ("500m", "500m")])
def test_quantities_are_read_as_text(written: Any, read: str) -> None:
    resources = deployment(HUB, resources={"cpu": written}).spec.resources
    assert resources is not None
    assert resources.cpu == read


@pytest.mark.parametrize(
    ("spec", "decided", "wanted"),
    [
        ({"replicas": 3}, None, 3),
        ({"replicas": 3}, 5, 3),  # autoscaling was taken away
        ({"replicas": 3, "autoscaling": {"maxReplicas": 4}}, None, 3),
        ({"replicas": 3, "autoscaling": {"maxReplicas": 2}}, None, 2),
        ({"replicas": 0, "autoscaling": {"maxReplicas": 2}}, None, 1),
        ({"replicas": 3, "autoscaling": {"maxReplicas": 4}}, 1, 1),
        ({"replicas": 3, "autoscaling": {"minReplicas": 0, "maxReplicas": 4}}, 0, 0),
        ({"replicas": 3, "autoscaling": {"minReplicas": 2, "maxReplicas": 4}}, 0, 2),
    ],
)
def test_how_many_replicas_there_should_be(spec: dict[str, Any], decided: int | None, wanted: int) -> None:
    body: dict[str, Any] = {
        "metadata": {"name": "m", "namespace": "team"},
        "spec": {"model": {"huggingFace": {"repo": "org/name"}}, **spec},
        "status": {"autoscaling": {"replicas": decided}} if decided is not None else {},
    }
    assert ModelDeployment.parse(body).wanted_replicas == wanted


@pytest.mark.parametrize(
    ("autoscaling", "message"),
    [
        ({"minReplicas": 3, "maxReplicas": 2}, "minReplicas must not be more than maxReplicas"),
        ({"maxReplicas": 2, "idleSecondsToZero": 60}, "idleSecondsToZero is for minReplicas 0"),
    ],
)
def test_limits_of_autoscaling_fit_together(autoscaling: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        deployment({"huggingFace": {"repo": "org/name"}}, autoscaling=autoscaling)
