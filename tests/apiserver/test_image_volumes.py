"""What is asked of a cluster that has image volumes; test_models.py has one that has them not."""

from collections.abc import Iterator
from typing import Any

import pytest

from dev.cluster import temporary
from dev.cluster.access import Access
from tests.apiserver.api import Api
from tests.rerank_operator.samples import built, model

VOLUME = {"reference": f"registry.example.com/models/bge-m3@sha256:{'0' * 64}", "pullPolicy": "IfNotPresent"}


@pytest.fixture(scope="module")
def with_image_volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API server with the feature gate on, without our resources."""
    folder = tmp_path_factory.mktemp("image-volumes")
    with temporary.control_plane(folder, feature_gates="ImageVolume=true") as plane:
        yield Api(Access.to(plane))


def test_replicas_mount_the_image(with_image_volumes: Api) -> None:
    wanted: Any = built(model(model={"image": {"reference": VOLUME["reference"], "path": "bge"}}))
    wanted["metadata"]["namespace"] = "default"
    del wanted["metadata"]["ownerReferences"]
    path = f"/apis/apps/v1/namespaces/default/deployments/{wanted['metadata']['name']}"
    made = with_image_volumes.apply(path, wanted)
    [volume] = [v for v in made["spec"]["template"]["spec"]["volumes"] if v["name"] == "models"]
    assert volume["image"] == VOLUME
    # The API server is stricter with a pod than with the template of one.
    template = wanted["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "p", **template["metadata"]}}
    admitted = with_image_volumes.create("/api/v1/namespaces/default/pods", pod)
    [serve] = admitted["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in serve["volumeMounts"]}
    assert mounts["models"] == "/models/image"
    assert "/models/image/bge" in serve["args"]
    assert "initContainers" not in admitted["spec"]
