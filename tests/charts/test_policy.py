"""The admission policy that the chart makes of `policy`, as text; tests/apiserver asks it."""

from typing import Any

import pytest

from tests.charts.conftest import Objects, Render

KINDS = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def policies(objects: Objects) -> dict[str, list[dict[str, Any]]]:
    """What there is of both kinds, by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in objects:
        if item["kind"] in KINDS:
            found.setdefault(item["metadata"]["name"], []).append(item)
    return found


def test_each_policy_has_its_binding(render: Render) -> None:
    found = policies(render("policy.maxReplicas=4"))
    assert set(found) == {"rerank-models", "rerank-models-scale"}
    for name, items in found.items():
        assert {item["kind"] for item in items} == KINDS
        (binding,) = [item for item in items if item["kind"].endswith("Binding")]
        assert binding["spec"] == {"policyName": name, "validationActions": ["Deny"]}


@pytest.mark.parametrize(
    "values",
    [("policy.admission=false",), ("rbac.clusterRoles=false", 'watchNamespaces=["a"]')],
)
def test_there_is_none_where_it_is_not_wanted_or_not_allowed(render: Render, values: tuple[str, ...]) -> None:
    assert policies(render("policy.maxReplicas=4", *values)) == {}


def test_it_holds_in_the_namespaces_that_are_served(render: Render) -> None:
    for items in policies(render("policy.maxReplicas=4", 'watchNamespaces=["a","b"]')).values():
        (binding,) = [item for item in items if item["kind"].endswith("Binding")]
        (expression,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}


def test_what_is_not_limited_is_not_asked_about(objects: Objects) -> None:
    (policy, _) = policies(objects)["rerank-models"]
    text = str(policy["spec"]["validations"])
    assert "policy.images" in text
    for name in ("hubEndpoints", "modelImages", "licenses", "maxReplicas"):
        assert f"policy.{name}" not in text
