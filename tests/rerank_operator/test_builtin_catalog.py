"""The entries that come with the installation: read from files, applied where they differ."""

import asyncio
import copy
import json
from pathlib import Path

import pytest

from rerank_operator import builtin_catalog
from rerank_operator.api_error import ApiError
from rerank_operator.builtin_catalog import install, load, outdated
from rerank_operator.cluster import Cluster
from rerank_operator.resources import Object, Resource
from tests.rerank_operator.test_catalog import entry

OURS = {"app.kubernetes.io/managed-by": "rerank-operator"}


def wanted(*names: str) -> list[Object]:
    return [{**entry(name), "metadata": {"name": name, "labels": OURS}} for name in names]


def applied(*entries: Object) -> list[Object]:
    """As they are there after an apply."""
    bodies = copy.deepcopy([intent for intent, _ in outdated(entries, [])])
    for body in bodies:
        body["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    return bodies


def test_files_are_read_and_labelled(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(entry("a")))
    (tmp_path / "README").write_text("not an entry")
    (found,) = load(tmp_path)
    assert found["metadata"] == {"name": "a", "labels": OURS}
    assert found["spec"] == entry("a")["spec"]


@pytest.mark.parametrize("text", ["", "[]", '{"metadata": {"name": "a"}, "spec": {}}'])
def test_a_file_that_is_no_entry_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(ValueError, match=r"broken\.json is no catalog entry"):
        load(tmp_path)


def test_what_is_as_wanted_is_not_written() -> None:
    entries = wanted("a", "b")
    assert outdated(entries, applied(*entries)) == []


def test_what_is_missing_or_changed_is_written() -> None:
    entries = wanted("a", "b", "c")
    live = applied(*entries)[:2]
    live[0]["spec"]["license"] = "edited"
    steps = [(intent["metadata"]["name"], version) for intent, version in outdated(entries, live)]
    assert steps == [("a", "7"), ("c", None)]


def test_a_field_that_was_dropped_is_written() -> None:
    before = wanted("a")
    before[0]["spec"]["defaults"] = {"resources": {"memory": "12Gi"}}
    assert [version for _, version in outdated(wanted("a"), applied(*before))] == ["7"]


def test_an_entry_of_somebody_else_stays() -> None:
    theirs = entry("a", license="theirs")
    assert outdated(wanted("a"), [theirs]) == []


class Server(Cluster):
    """Refuses what it is told to; remembers what it took."""

    def __init__(self, failures: dict[str, list[ApiError]]) -> None:
        super().__init__(api=None)  # type: ignore[arg-type]  # nothing is connected
        self.failures = failures
        self.taken: list[str] = []

    async def list(self, resource: Resource, namespace: str | None, *, labels: str = "") -> list[Object]:
        return applied(*wanted(*self.taken))

    async def apply(self, intent: Object, *, resource_version: str | None) -> Object:
        name = intent["metadata"]["name"]
        if self.failures.get(name):
            raise self.failures[name].pop(0)
        self.taken.append(name)
        return intent


async def test_it_is_tried_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_catalog, "_RETRY_SECONDS", 0)
    server = Server({"b": [ApiError(0, "Unreachable", ""), ApiError(409, "Conflict", "")]})
    await asyncio.wait_for(install(server, wanted("a", "b", "c")), 5)
    assert server.taken == ["a", "b", "c"], "each once, the order kept"


async def test_one_that_is_refused_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_catalog, "_RETRY_SECONDS", 0)
    server = Server({"b": [ApiError(422, "Invalid", "spec.parameters")] * 9})
    await asyncio.wait_for(install(server, wanted("a", "b", "c")), 5)
    assert server.taken == ["a", "c"]


async def test_one_that_is_forbidden_is_made_when_the_rights_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builtin_catalog, "_FORBIDDEN_SECONDS", 0)
    server = Server({"b": [ApiError(403, "Forbidden", "cannot patch")] * 2})
    await asyncio.wait_for(install(server, wanted("a", "b", "c")), 5)
    assert server.taken == ["a", "c", "b"]
