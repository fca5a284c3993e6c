"""Comparing and planning: nothing where nothing differs, and nothing of anybody else's."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_operator.builders.config_map import config_map
from rerank_operator.builders.metadata import owner_reference, with_applied
from rerank_operator.builders.service import service
from rerank_operator.builders.source import source_of
from rerank_operator.compare import satisfied
from rerank_operator.plan import plan
from rerank_operator.resources import Object
from tests.rerank_operator.samples import COMMIT, built, model

OWNER = owner_reference(model())


def wanted(**spec: Any) -> list[Object]:
    of = model(**spec)
    source = source_of(of, hub_endpoint=None)
    return [
        config_map(of, source_key=source.key, pin=COMMIT),
        service(of),
        built(of),
    ]


def as_live(intent: Object) -> Object:
    """What the API server makes of an applied intent: defaults, and fields of its own."""
    body = copy.deepcopy(with_applied(intent))
    body["metadata"] |= {"uid": "x", "resourceVersion": "42", "managedFields": []}
    if intent["kind"] == "Deployment":
        spec = body["spec"]["template"]["spec"]
        spec |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
        for container in spec["containers"]:
            container["resources"]["requests"]["cpu"] = "1000m"
            container["livenessProbe"]["initialDelaySeconds"] = 0
        body["status"] = {"replicas": 1}
    if intent["kind"] == "Service":
        body["spec"]["ports"][0]["nodePort"] = 0
        body["spec"]["clusterIPs"] = ["None"]
    if not body.get("data", True):
        del body["data"]
    return body


def live(intents: list[Object]) -> dict[str, Object | None]:
    return {intent["kind"]: as_live(intent) for intent in intents}


def test_a_child_of_ours_that_is_not_wanted_any_more_goes() -> None:
    objects = live(wanted())
    without = [intent for intent in wanted() if intent["kind"] != "ConfigMap"]
    planned = plan(without, objects, owner=OWNER)
    assert planned.removals == (objects["ConfigMap"],)
    assert not planned.steps
    theirs = copy.deepcopy(objects)
    assert theirs["ConfigMap"] is not None
    theirs["ConfigMap"]["metadata"]["ownerReferences"] = []
    assert plan(without, theirs, owner=OWNER).removals == ()
    assert objects["ConfigMap"] is not None
    objects["ConfigMap"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert plan(without, objects, owner=OWNER).removals == (), "it goes already"


def test_everything_is_new_at_first() -> None:
    planned = plan(wanted(), {}, owner=OWNER)
    assert [(step.intent["kind"], step.resource_version) for step in planned.steps] == [
        ("ConfigMap", None),
        ("Service", None),
        ("Deployment", None),
    ]


def test_nothing_differs_after_the_api_server_added_its_defaults() -> None:
    assert plan(wanted(), live(wanted()), owner=OWNER).steps == ()


def test_what_others_add_is_not_a_difference() -> None:
    there = live(wanted())
    for body in there.values():
        assert body is not None
        body["metadata"]["labels"]["team"] = "search"
        body["metadata"]["annotations"]["note"] = "mine"
        body["metadata"]["ownerReferences"].insert(0, {"uid": "another", "kind": "Team", "name": "t"})
    assert plan(wanted(), there, owner=OWNER).steps == ()


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ["spec", "replicas"], 5),
        ("Deployment", ["spec", "template", "spec", "containers", 0, "image"], "theirs"),
        ("Deployment", ["spec", "template", "spec", "containers", 0, "args"], ["serve"]),
        ("Deployment", ["spec", "template", "spec", "containers", 0, "resources", "limits", "memory"], "9Gi"),
        ("Deployment", ["spec", "template", "spec", "containers"], []),
        ("Deployment", ["spec", "template", "spec", "securityContext"], None),
        ("Service", ["spec", "selector"], {}),
        ("Service", ["metadata", "labels"], None),
        ("ConfigMap", ["data"], {}),
        ("ConfigMap", ["metadata", "annotations"], {}),
    ],
)
def test_an_edit_is_undone(kind: str, path: list[Any], value: Any) -> None:
    there = live(wanted())
    place: Any = there[kind]
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    planned = plan(wanted(), there, owner=OWNER)
    assert [(step.intent["kind"], step.resource_version) for step in planned.steps] == [(kind, "42")]


def test_what_is_no_longer_wanted_is_a_difference() -> None:
    """The live object still has all that is wanted; only the digest tells that it has more of ours."""
    there = live(wanted(scheduling={"nodeSelector": {"disk": "ssd"}}))
    planned = plan(wanted(), there, owner=OWNER)
    assert [step.intent["kind"] for step in planned.steps] == ["Deployment"]


def test_a_taken_name_stops_everything() -> None:
    there = live(wanted())
    service_there = there["Service"]
    assert service_there is not None
    service_there["metadata"]["ownerReferences"] = []
    planned = plan(wanted(replicas=9), there, owner=OWNER)
    assert (planned.steps, planned.taken) == ((), ("Service rerank-minilm",))


def test_children_of_a_deleted_namesake_are_waited_for() -> None:
    there = live(wanted())
    for body in there.values():
        assert body is not None
        body["metadata"]["ownerReferences"][0]["uid"] = "of-the-old-one"
    planned = plan(wanted(), there, owner=OWNER)
    assert (planned.steps, planned.taken, len(planned.leaving)) == ((), (), 3)


def test_a_child_that_is_being_deleted_is_waited_for() -> None:
    there = live(wanted())
    body = there["Deployment"]
    assert body is not None
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert plan(wanted(), there, owner=OWNER).leaving == ("Deployment rerank-minilm",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(JSON)
def test_everything_satisfies_itself(value: Any) -> None:
    assert satisfied(value, copy.deepcopy(value))


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.text(max_size=5), JSON)
def test_more_than_wanted_still_satisfies(value: dict[str, Any], name: str, extra: Any) -> None:
    assert satisfied(value, {name: extra, **value})


@pytest.mark.parametrize(
    ("want", "have", "equal"),
    [
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "1000m"}}, True),
        ({"requests": {"memory": "1024Mi"}}, {"requests": {"memory": "1Gi"}}, True),
        ({"limits": {"nvidia.com/gpu": "1"}}, {"limits": {"nvidia.com/gpu": "2"}}, False),
        ({"limits": {"memory": "1Gi"}}, {"limits": {}}, False),
        ({"data": {}}, {}, True),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, False),
        ({"args": ["a"]}, {"args": ["a", "b"]}, False),
        ({"args": "a"}, {"args": ["a"]}, False),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "B"}, {"name": "A", "value": "1"}]}, True),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}, False),
        ({"replicas": 0}, {}, False),
        ({"hashes": [{"keyId": "a"}, {"keyId": "b"}]}, {"hashes": [{"keyId": "b"}, {"keyId": "a"}]}, True),
        ({"hashes": [{"keyId": "a"}]}, {"hashes": [{"keyId": "a"}, {"keyId": "b"}]}, False),
        ({"hashes": [{"keyId": "a"}]}, {"hashes": [{"keyId": "a", "expiresAt": "2026"}]}, False),
        ({"hashes": []}, {}, True),
    ],
)
def test_comparing(want: Any, have: Any, equal: bool) -> None:
    assert satisfied(want, have) is equal


@pytest.mark.parametrize(("live", "same"), [("1536Mi", True), ("1.5Gi", True), ("2Gi", False), (None, False)])
def test_a_size_limit_is_compared_as_a_quantity(live: str | None, same: bool) -> None:
    """The API server writes 1.5Gi as 1536Mi: that is no reason to apply anything."""
    there = {"emptyDir": {"sizeLimit": live} if live else {}}
    assert satisfied({"emptyDir": {"sizeLimit": "1.5Gi"}}, there) is same
