"""Models that other namespaces may call, and names that several models claim, against a real API server."""

from collections.abc import Iterator

import pytest

from tests.apiserver.api import Api, Object, eventually
from tests.apiserver.models import apply_model, condition, model_path, settled
from tests.apiserver.operator_process import Operator


@pytest.fixture(autouse=True)
def _operator_runs(running: Operator) -> None:
    """Each test here has the operator running when it begins."""


@pytest.fixture
def other(api: Api, namespace: str) -> Iterator[str]:
    """A second namespace of the test's own."""
    name = f"{namespace}-other"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


def names(api: Api, namespace: str, reason: str, name: str = "m") -> str:
    """What the model says of its names once that has this reason."""

    def looks_so(body: Object) -> bool:
        return condition(body, "NamesResolved").get("reason") == reason

    return str(condition(settled(api, namespace, looks_so, name), "NamesResolved")["message"])


def test_the_newer_of_two_models_with_one_alias_says_so_until_the_older_lets_go(
    api: Api, namespace: str
) -> None:
    apply_model(api, namespace, "b", replicas=0, aliases=["best"])
    names(api, namespace, "Resolved", "b")
    apply_model(api, namespace, "c", replicas=0, aliases=["best"])
    told = names(api, namespace, "NameTaken", "c")
    assert told == (
        '"best" leads to the ModelDeployment b, which had it first: take it out of spec.aliases here or there'
    )
    assert condition(api.get(model_path(namespace, "b")), "NamesResolved")["status"] == "True"
    events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    found = eventually("it is told", lambda: api.items(events, fieldSelector="reason=NameTaken"))
    assert [event["note"] for event in found] == [told]
    api.delete(model_path(namespace, "b"))
    names(api, namespace, "Resolved", "c")


def test_a_shared_name_that_is_shadowed_says_how_to_ask_for_it(api: Api, namespace: str, other: str) -> None:
    apply_model(api, namespace, replicas=0, access={"namespaces": [other]})
    names(api, namespace, "Resolved")
    apply_model(api, other, replicas=0)
    told = names(api, namespace, "NameTaken")
    assert told == (
        f'in namespace {other} "m" leads to another model: ask for this one there as "{namespace}/m"'
    )
    names(api, other, "Resolved")
    apply_model(api, namespace, replicas=0)
    names(api, namespace, "Resolved")


def test_names_stay_as_they_are_over_a_restart(api: Api, namespace: str, running: Operator) -> None:
    for name in ("b", "c"):
        apply_model(api, namespace, name, replicas=0, aliases=["best", "c"])
    names(api, namespace, "NameTaken", "b")
    before = condition(api.get(model_path(namespace, "b")), "NamesResolved")["lastTransitionTime"]
    running.stop()
    running.start()
    apply_model(api, namespace, "b", replicas=0, aliases=["best", "c", "more"])
    settled(api, namespace, lambda body: body["status"]["observedGeneration"] == 2, "b")
    found = condition(api.get(model_path(namespace, "b")), "NamesResolved")
    assert (found["reason"], found["lastTransitionTime"]) == ("NameTaken", before)
