"""What is told of a write. How the API server takes it: tests/apiserver."""

import math
from typing import Any

import pytest

from rerank_api import names
from rerank_operator.api_error import NotLeaderError
from rerank_operator.cluster import REQUEST_TIMEOUT_SECONDS, Cluster
from rerank_operator.resources import API_KEY, MODEL_DEPLOYMENT, Object, Resource


class Obliging(Cluster):
    """Whatever is asked is done."""

    deadline = 0.0

    async def _request(self, method: str, path: str, *, deadline: float = 0, **_: Any) -> Object:
        self.deadline = deadline
        return {"metadata": {"uid": "u", "resourceVersion": "2"}}


@pytest.mark.parametrize(
    ("resource", "manager", "told"),
    [
        (API_KEY, names.FIELD_MANAGER, "apikeys"),
        (API_KEY, names.USAGE_FIELD_MANAGER, "apikeys/usage"),
        (MODEL_DEPLOYMENT, names.AUTOSCALING_FIELD_MANAGER, "modeldeployments/autoscaling"),
        (MODEL_DEPLOYMENT, names.MEASURED_FIELD_MANAGER, "modeldeployments/measured"),
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


@pytest.mark.parametrize(
    ("manager", "own"),
    [
        (names.FIELD_MANAGER, True),
        (names.USAGE_FIELD_MANAGER, False),  # it is written onto what no look may have seen
        (names.AUTOSCALING_FIELD_MANAGER, False),  # a look has to carry out what was decided
        (names.MEASURED_FIELD_MANAGER, False),  # as usage
    ],
)
async def test_the_versions_that_looks_make_are_known(manager: str, own: bool) -> None:
    api = Obliging(api=None)  # type: ignore[arg-type]  # nothing is connected
    live = {"metadata": {"name": "n", "namespace": "team", "uid": "u", "resourceVersion": "1"}}
    await api.apply_status(MODEL_DEPLOYMENT, live, {}, field_manager=manager)
    assert (("u", "2") in api.own) is own
    assert ("u", "1") not in api.own


async def test_the_version_of_a_child_is_known() -> None:
    api = Obliging(api=None)  # type: ignore[arg-type]  # nothing is connected
    intent = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "n", "namespace": "team"}}
    await api.apply(intent, resource_version=None)
    assert ("u", "2") in api.own


class Pages(Cluster):
    """Two pages, and none of metadata, as the API server writes that."""

    async def _request(self, method: str, path: str, **asked: Any) -> Object:
        if "PartialObjectMetadataList" in asked["accept"]:
            return {"items": None, "metadata": {"resourceVersion": "1"}}
        assert int(asked["query"]["limit"]) > 0
        if not asked["query"]["continue"]:
            return {"items": [{"n": 1}, {"n": 2}], "metadata": {"continue": "more"}}
        return {"items": [{"n": 3}], "metadata": {"continue": ""}}


async def test_lists_are_read_page_by_page() -> None:
    api = Pages(api=None)  # type: ignore[arg-type]  # nothing is connected
    assert [item["n"] async for item in api.pages(MODEL_DEPLOYMENT, None)] == [1, 2, 3]


async def test_a_list_of_no_metadata_is_empty() -> None:
    api = Pages(api=None)  # type: ignore[arg-type]  # nothing is connected
    assert [item async for item in api.pages(MODEL_DEPLOYMENT, None, metadata_only=True)] == []
