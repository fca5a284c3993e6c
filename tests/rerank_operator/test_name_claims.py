"""A model whose names lead elsewhere says so, and to whom only where that is its own namespace's."""

from typing import Any

import pytest

from rerank_operator.claims import Claims
from rerank_operator.name_claims import Place, known_names, strengths, verdict
from tests.rerank_gateway import objects

WAY_OUT = "take it out of spec.aliases here or there"
OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def told(of: dict[str, Any], *others: dict[str, Any]) -> str:
    """What the first model says of its names, among the others; empty where all lead to it."""
    claims: Claims[Place] = Claims(known_names(None))  # type: ignore[arg-type]  # nothing is listed
    for body in (of, *others):
        claims.note((body["metadata"]["namespace"], body["metadata"]["name"]), strengths(body))
    found = verdict(of, claims.lost((of["metadata"]["namespace"], of["metadata"]["name"])))
    assert (found.type, found.status == "True") == ("NamesResolved", found.reason == "Resolved")
    return "" if found.status == "True" else found.message


def test_names_that_nobody_else_has() -> None:
    one = objects.model("a", aliases=["x"], shared_with=["team-b"])
    assert told(one, objects.model("b"), objects.model("x", namespace="team-c")) == ""


@pytest.mark.parametrize(
    ("of", "other", "message"),
    [
        (
            objects.model("a", aliases=["x"], created=NEW),
            objects.model("b", aliases=["x"], created=OLD),
            f'"x" leads to the ModelDeployment b, which had it first: {WAY_OUT}',
        ),
        (
            objects.model("a", aliases=["b"], created=OLD),
            objects.model("b", created=NEW),
            f'"b" leads to the ModelDeployment b, which is named so: {WAY_OUT}',
        ),
        (
            objects.model("a", shared_with=["team-b"], created=OLD),
            objects.model("a", namespace="team-b", created=NEW),
            'in namespace team-b "a" leads to another model: ask for this one there as "default/a"',
        ),
        (
            objects.model("a", shared_with=["team-b"], created=NEW),
            objects.model("a", namespace="team-c", shared_with=["team-b"], created=OLD),
            'in namespace team-b "a" leads to another model: ask for this one there as "default/a"',
        ),
        (
            objects.model("a", shared_with=["team-b"]),
            objects.model("z", namespace="team-b", repo="default/a"),
            'in namespace team-b "default/a" leads to a model there that claims this name',
        ),
    ],
)
def test_a_name_that_leads_elsewhere(of: dict[str, Any], other: dict[str, Any], message: str) -> None:
    assert told(of, other) == message
    assert told(other, of) == ""


def test_two_models_of_one_repository_are_no_mistake() -> None:
    old, new = objects.model("a", created=OLD), objects.model("b", created=NEW)
    assert told(new, old) == told(old, new) == ""


def test_a_long_list_is_cut() -> None:
    names = [f"x{number}" for number in range(5)]
    of = objects.model("a", aliases=names, created=NEW)
    assert told(of, objects.model("b", aliases=names, created=OLD)).endswith("; and 2 more")
