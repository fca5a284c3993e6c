"""Catalog entries: found or not, and whom a change wakes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from rerank_api.catalog_model import CatalogModel
from rerank_operator.catalog import BuiltIn, CatalogModels, Users, not_found, read
from rerank_operator.cluster import Cluster
from rerank_operator.resources import Object, Resource
from rerank_operator.situation import Obstacle

NAMES = ("qwen3-reranker-0.6b", "qwen3-reranker-4b", "bge-reranker-v2-m3", "jina-reranker-v3")


def entry(name: str, **spec: Any) -> Object:
    """An entry as the API server returns it."""
    return {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "CatalogModel",
        "metadata": {"name": name, "resourceVersion": "5"},
        "spec": {
            "displayName": name,
            "description": "A model.",
            "family": "qwen3",
            "license": "Apache-2.0",
            "languages": "en",
            "parameters": "0.6B",
            "contextLength": 8192,
            "memory": "4 GB",
            "source": {"huggingFace": {"repo": "org/entry", "revision": "main"}},
            **spec,
        },
    }


class Entries(Cluster):
    """Holds catalog entries."""

    def __init__(self, *entries: Object) -> None:
        super().__init__(api=None)  # type: ignore[arg-type]  # nothing is connected
        self.entries = {body["metadata"]["name"]: body for body in entries}

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        assert (resource.kind, namespace) == ("CatalogModel", None)
        return self.entries.get(name)

    async def pages(
        self, resource: Resource, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Object]:
        for body in self.entries.values():
            yield body


async def test_an_entry_is_read() -> None:
    found = await read(CatalogModels(Entries(entry("a", defaults={"resources": {"memory": "12Gi"}}))), "a")
    assert isinstance(found, CatalogModel)
    assert found.spec.source.hugging_face.repo == "org/entry"


async def test_an_absent_entry_is_an_obstacle() -> None:
    found = await read(CatalogModels(Entries(*map(entry, NAMES))), "qwen3-reranker-0.6")
    assert isinstance(found, Obstacle)
    assert found.reason == "CatalogModelNotFound"
    assert "did you mean qwen3-reranker-0.6b or" in found.message


async def test_an_entry_of_another_version_is_an_obstacle() -> None:
    found = await read(CatalogModels(Entries(entry("a", novelty=True))), "a")
    assert isinstance(found, Obstacle)
    assert found.reason == "CatalogModelUnreadable"
    assert "novelty" in found.message


async def test_without_the_right_to_read_entries_there_are_the_built_in_ones() -> None:
    built_in = BuiltIn({name: entry(name) for name in NAMES})
    found = await read(built_in, "jina-reranker-v3")
    assert isinstance(found, CatalogModel)
    absent = await read(built_in, "zzz")
    assert isinstance(absent, Obstacle)
    assert "rights in namespaces only and knows bge-reranker-v2-m3, jina-reranker-v3" in absent.message


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        ("bge-reranker-v2", NAMES, "did you mean bge-reranker-v2-m3"),
        ("zzz", NAMES, "there is no catalog entry zzz: see the list"),
        ("zzz", (), "the catalog is empty (catalog.install of the chart"),
    ],
)
def test_what_was_perhaps_meant_is_named(name: str, known: tuple[str, ...], told: str) -> None:
    assert told in not_found(name, known, everything="see the list").message


def test_users_are_known_by_their_last_look() -> None:
    users = Users()
    users.note(("team", "a"), "qwen")
    users.note(("team", "b"), "qwen")
    users.note(("team", "c"), None)
    assert users.of("qwen") == {("team", "a"), ("team", "b")}
    users.note(("team", "a"), "bge")
    users.note(("team", "b"), None)
    assert users.of("qwen") == frozenset()
    assert users.of("bge") == {("team", "a")}
    users.note(("team", "a"), None)
    assert (users._users, users._entries) == ({}, {}), "nothing is kept of those that are gone"


@pytest.mark.parametrize(
    ("memory", "count"),
    [
        ("2.3 GiB", 2469606195),
        ("10 GiB", 10 * 2**30),
        ("4GiB", 2**32),
        ("2.1 GiB (CPU)", None),
        ("much", None),
    ],
)
def test_the_memory_of_an_entry_as_a_number(memory: str, count: int | None) -> None:
    assert CatalogModel.parse(entry("a", memory=memory)).spec.memory_bytes == count
