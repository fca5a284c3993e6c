"""The first look at a resource takes it from the list, unless an event told of another version."""

from collections.abc import AsyncIterator

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

    async def pages(
        self, resource: Resource, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Object]:
        if resource == resources.API_KEY and namespace in {None, "team"}:
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


async def test_one_of_another_kind_is_another() -> None:
    subject = await listed(Server())
    subject.told(("ModelDeployment", "team", "k"), ("u", "2"))
    assert await subject.read(resources.MODEL_DEPLOYMENT, "team", "k") is None
    assert await subject.read(resources.API_KEY, "team", "k") == body("1")
