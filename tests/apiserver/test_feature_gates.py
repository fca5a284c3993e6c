"""A cluster with feature gates the other way round: with image volumes, which test_models.py has one without,
and without resource claims, which test_gpu_claims.py has one with.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from dev.cluster import temporary
from dev.cluster.access import Access
from rerank_api.model_deployment import ModelDeployment
from rerank_operator.builders.deployment import recent_fields
from tests.apiserver.api import Api
from tests.rerank_operator.samples import built, model

VOLUME = {"reference": f"registry.example.com/models/bge-m3@sha256:{'0' * 64}", "pullPolicy": "IfNotPresent"}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API server with other feature gates, without our resources."""
    gates = "ImageVolume=true,DynamicResourceAllocation=false"
    with temporary.control_plane(tmp_path_factory.mktemp("feature-gates"), feature_gates=gates) as plane:
        yield Api(Access.to(plane))


def applied(api: Api, of: ModelDeployment) -> tuple[Any, Any]:
    """A Deployment as the operator wants it, and as the API server has it."""
    wanted: Any = built(of)
    wanted["metadata"]["namespace"] = "default"
    del wanted["metadata"]["ownerReferences"]
    path = f"/apis/apps/v1/namespaces/default/deployments/{wanted['metadata']['name']}"
    return wanted, api.apply(path, wanted)


def test_replicas_mount_the_image(other: Api) -> None:
    wanted, made = applied(other, model(model={"image": {"reference": VOLUME["reference"], "path": "bge"}}))
    [volume] = [v for v in made["spec"]["template"]["spec"]["volumes"] if v["name"] == "models"]
    assert volume["image"] == VOLUME
    # The API server is stricter with a pod than with the template of one.
    template = wanted["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "p", **template["metadata"]}}
    admitted = other.create("/api/v1/namespaces/default/pods", pod)
    [serve] = admitted["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in serve["volumeMounts"]}
    assert mounts["models"] == "/models/image"
    assert "/models/image/bge" in serve["args"]
    assert "initContainers" not in admitted["spec"]


def test_claims_are_dropped_without_a_word(other: Api) -> None:
    """The reason why the operator rehearses. Replicas would go where there is no GPU."""
    of = model(name="claims", resources={"gpu": {"resourceClaimTemplateName": "gpu-24g"}})
    wanted, made = applied(other, of)
    assert recent_fields(wanted) == {"resource claim"}
    assert recent_fields(made) == set()
    [serve] = made["spec"]["template"]["spec"]["containers"]
    assert "claims" not in serve["resources"]
