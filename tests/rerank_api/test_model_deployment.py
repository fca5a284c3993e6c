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
