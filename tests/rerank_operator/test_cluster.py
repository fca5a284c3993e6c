"""What is told of a write. How the API server takes it: tests/apiserver."""

from typing import Any

import pytest

from rerank_api import names
from rerank_operator.cluster import API_KEY, MODEL_DEPLOYMENT, Cluster, Object, Resource


class Obliging(Cluster):
    """Whatever is asked is done."""

    async def _request(self, method: str, path: str, **_: Any) -> Object:
        return {}


@pytest.mark.parametrize(
    ("resource", "manager", "told"),
    [
        (API_KEY, names.FIELD_MANAGER, "apikeys"),
        (API_KEY, names.USAGE_FIELD_MANAGER, "apikeys/usage"),
        (MODEL_DEPLOYMENT, names.AUTOSCALING_FIELD_MANAGER, "modeldeployments/autoscaling"),
    ],
)
async def test_what_others_write_into_a_status_is_counted_apart(
    resource: Resource, manager: str, told: str
) -> None:
    counted: list[str] = []
    api = Obliging(api=None, on_write=counted.append)  # type: ignore[arg-type]  # nothing is connected
    live = {"metadata": {"name": "n", "namespace": "team", "uid": "u", "resourceVersion": "1"}}
    await api.apply_status(resource, live, {}, field_manager=manager)
    assert counted == [told]
