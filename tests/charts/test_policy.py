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


ASKED = {
    "policy.hubEndpoints=[]": "policy.hubEndpoints",
    "policy.modelImages=[]": "policy.modelImages",
    'policy.licenses=["MIT"]': "only models of the catalog are allowed (with the licences: MIT)",
    "policy.maxReplicas=4": "policy.maxReplicas",
}


@pytest.mark.parametrize(("value", "words"), ASKED.items())
def test_what_is_limited_is_asked_about_and_nothing_else(
    render: Render, objects: Objects, value: str, words: str
) -> None:
    def rules(of: Objects) -> str:
        (policy, _) = policies(of)["rerank-models"]
        return str(policy["spec"]["validations"])

    assert "policy.images" in rules(objects)
    assert words not in rules(objects)
    assert words in rules(render(value))
