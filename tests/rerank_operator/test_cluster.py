"""What is told of a write. How the API server takes it: tests/apiserver."""

import math
from typing import Any

import pytest

from rerank_api import names
from rerank_operator.cluster import (
    API_KEY,
    MODEL_DEPLOYMENT,
    REQUEST_TIMEOUT_SECONDS,
    Cluster,
    NotLeaderError,
    Object,
    Resource,
)


class Obliging(Cluster):
    """Whatever is asked is done."""

    deadline = 0.0

    async def _request(self, method: str, path: str, *, deadline: float = 0, **_: Any) -> Object:
        self.deadline = deadline
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


@pytest.mark.parametrize(("left", "deadline"), [(math.inf, REQUEST_TIMEOUT_SECONDS), (4.0, 4.0), (0.0, None)])
async def test_a_write_does_not_outlive_the_lease(left: float, deadline: float | None) -> None:
    api = Obliging(api=None, may_write_for=lambda: left)  # type: ignore[arg-type]  # nothing is connected
    event = {"metadata": {"namespace": "team"}}
    if deadline is None:
        with pytest.raises(NotLeaderError):
            await api.create_event(event)
    else:
        await api.create_event(event)
    assert api.deadline == (deadline or 0)
