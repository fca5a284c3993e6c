"""The first look at a resource takes it from the list, unless an event told of another version."""

from collections.abc import AsyncIterator, Callable

import pytest

from rerank_operator import resources
from rerank_operator.cluster import Cluster
from rerank_operator.listed import Listed
from rerank_operator.resources import Object, Resource

KEY = ("APIKey", "team", "k")


def body(version: str) -> Object:
    metadata = {"namespace": "team", "name": "k", "uid": "u", "resourceVersion": version}
    return {"metadata": metadata, "spec": {"version": int(version)}}


class Server(Cluster):
    """Has one APIKey, and of other kinds nothing."""

    def __init__(self) -> None:
        self.there = body("1")
        self.asked = 0
        self.amid: Callable[[], None] = lambda: None

    async def pages(
        self, resource: Resource, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Object]:
        if resource == resources.API_KEY and namespace in {None, "team"}:
            self.amid()
            managed = {**self.there["metadata"], "managedFields": ["many"]}
            yield {**self.there, "metadata": managed}

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        self.asked += 1
        return self.there if (resource, name) == (resources.API_KEY, "k") else None


async def listed(server: Server, *namespaces: str) -> Listed:
    found = Listed(server, namespaces)
    assert len([item async for item in found.all(resources.API_KEY)]) == 1
    return found


@pytest.mark.parametrize("namespaces", [(), ("other", "team")])
async def test_what_was_listed_is_read_once_from_the_list(namespaces: tuple[str, ...]) -> None:
    server = Server()
    subject = await listed(server, *namespaces)
    subject.told(KEY, ("u", "1"))
    assert await subject.read(resources.API_KEY, "team", "k") == body("1")
    assert server.asked == 0
    server.there = body("2")
    assert await subject.read(resources.API_KEY, "team", "k") == body("2")


@pytest.mark.parametrize("version", [("u", "2"), ("another", "1"), ("", "")])
async def test_an_event_of_another_version_ends_it(version: tuple[str, str]) -> None:
    server = Server()
    subject = await listed(server)
    server.there = body("2")
    subject.told(KEY, version)
    assert await subject.read(resources.API_KEY, "team", "k") == body("2")


@pytest.mark.parametrize(("told", "reads"), [("1", 0), ("2", 1)])
async def test_an_event_amid_the_list_may_be_newer_than_its_rest(told: str, reads: int) -> None:
    """All pages are of the moment in which the first was asked for."""
    server = Server()
    subject = Listed(server, ("other", "team"))
    server.amid = lambda: subject.told(KEY, ("u", told))
    assert len([item async for item in subject.all(resources.API_KEY)]) == 1
    server.there = body(told)
    assert await subject.read(resources.API_KEY, "team", "k") == body(told)
    assert server.asked == reads


async def test_what_is_told_before_the_list_is_older() -> None:
    server = Server()
    subject = Listed(server, ())
    subject.told(KEY, ("u", "0"))
    assert len([item async for item in subject.all(resources.API_KEY)]) == 1
    await subject.read(resources.API_KEY, "team", "k")
    assert server.asked == 0


async def test_one_of_another_kind_is_another() -> None:
    subject = await listed(Server())
    subject.told(("ModelDeployment", "team", "k"), ("u", "2"))
    assert await subject.read(resources.MODEL_DEPLOYMENT, "team", "k") is None
    assert await subject.read(resources.API_KEY, "team", "k") == body("1")
