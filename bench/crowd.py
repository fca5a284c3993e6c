"""Thousands of ModelDeployments and APIKeys: made fast, and watched until the operator has settled them."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from dev.cluster.access import Access

Object = dict[str, Any]

API_VERSION: Final = "rerank.dev/v1alpha1"
KINDS: Final = ("modeldeployments", "apikeys")
MODELS_IN_NAMESPACE: Final = 100
KEYS_OF_MODEL: Final = 5
# As in a catalog: many models are of few repositories.
_REPOSITORIES: Final = 20
_CONNECTIONS: Final = 32


@dataclass(frozen=True)
class Crowd:
    """Models with `replicas` each, and five keys for each of them; a hundred models in a namespace."""

    models: int
    replicas: int = 1

    @property
    def keys(self) -> int:
        return self.models * KEYS_OF_MODEL

    def namespaces(self) -> Iterator[str]:
        for number in range(-(-self.models // MODELS_IN_NAMESPACE)):
            yield f"team-{number:02}"

    def objects(self) -> Iterator[tuple[str, Object]]:
        """Plural and body of each resource, a model followed by its keys."""
        for number in range(self.models):
            namespace = f"team-{number // MODELS_IN_NAMESPACE:02}"
            name = f"model-{number:04}"
            spec: Object = {
                "model": {"huggingFace": {"repo": f"org/reranker-{number % _REPOSITORIES}"}},
                "replicas": self.replicas,
                "resources": {"gpu": {"count": 0}},
            }
            yield "modeldeployments", _object("ModelDeployment", namespace, name, spec)
            for key in range(KEYS_OF_MODEL):
                yield "apikeys", _object("APIKey", namespace, f"{name}-key-{key}", {"models": [name]})


def _object(kind: str, namespace: str, name: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


@dataclass(frozen=True)
class Maker:
    """An administrator with many connections."""

    access: Access

    async def make(self, crowd: Crowd) -> None:
        """Make the namespaces, then everything in them."""
        async with self._session() as session:
            for name in crowd.namespaces():
                await _post(session, "/api/v1/namespaces", {"metadata": {"name": name}})
            await asyncio.gather(
                *(self._make(session, objects) for objects in [crowd.objects()] * _CONNECTIONS)
            )

    async def settled(self, crowd: Crowd, *, seconds: float) -> None:
        """Return when every resource of the crowd has a status of its newest generation.

        Raises:
            TimeoutError: not within `seconds`.
        """
        async with asyncio.timeout(seconds), self._session() as session:
            await asyncio.gather(
                self._settled(session, crowd, "modeldeployments", crowd.models),
                self._settled(session, crowd, "apikeys", crowd.keys),
            )

    async def count(self, path: str) -> int:
        """How many of the operator's children there are in a collection of the whole cluster."""
        query = {"labelSelector": "app.kubernetes.io/managed-by=rerank-operator"}
        accept = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
        async with self._session() as session, session.get(path, params=query, headers=accept) as response:
            return len(orjson.loads(await response.read())["items"] or ())  # null, where there is none

    async def _make(self, session: aiohttp.ClientSession, objects: Iterator[tuple[str, Object]]) -> None:
        for plural, body in objects:
            await _post(session, f"{_path(body['metadata']['namespace'])}/{plural}", body)

    async def _settled(self, session: aiohttp.ClientSession, crowd: Crowd, plural: str, count: int) -> None:
        settled: set[str] = set()
        namespaces = set(crowd.namespaces())

        def note(body: Object) -> bool:
            metadata = body["metadata"]
            if metadata["namespace"] in namespaces:
                observed = body.get("status", {}).get("observedGeneration")
                change = settled.add if observed == metadata["generation"] else settled.discard
                change(metadata["uid"])
            return len(settled) == count

        path = f"/apis/{API_VERSION}/{plural}"
        while (version := await _each(session, path, note)) is not None:
            # The API server ends a watch that is read too slowly, as amid so many requests of our own.
            if await _follow(session, path, version, note):
                return

    def _session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self.access.authority))
        context.load_cert_chain(self.access.certificate, self.access.key)
        return aiohttp.ClientSession(
            self.access.url,
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS + len(KINDS), ssl=context),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**20,
        )


async def _each(session: aiohttp.ClientSession, path: str, note: Callable[[Object], bool]) -> str | None:
    """Show `note` what there is, until it has seen enough; else the version to watch from."""
    query, token = {"limit": "500"}, ""
    while True:
        async with session.get(path, params={**query, "continue": token}) as response:
            response.raise_for_status()
            page = orjson.loads(await response.read())
        for item in page["items"]:
            if note(item):
                return None
        token = page["metadata"].get("continue", "")
        if not token:
            version: str = page["metadata"]["resourceVersion"]
            return version


async def _follow(
    session: aiohttp.ClientSession, path: str, version: str, note: Callable[[Object], bool]
) -> bool:
    """Show `note` what changes from this version on; whether it has seen enough before the watch ended."""
    query = {"watch": "1", "resourceVersion": version}
    while (response := await session.get(path, params=query)).status == 429:
        response.release()
        await asyncio.sleep(0.2)  # the API server has just heard of the kind
    async with response:
        response.raise_for_status()
        async for line in response.content:
            if note(orjson.loads(line)["object"]):
                if response.connection is not None and response.connection.transport is not None:
                    response.connection.transport.abort()  # a farewell would outlast the event loop
                return True
    return False


async def _post(session: aiohttp.ClientSession, path: str, body: Object) -> None:
    async with session.post(
        path, data=orjson.dumps(body), headers={"Content-Type": "application/json"}
    ) as done:
        if done.status != 201:
            raise ConnectionError(f"{path}: {done.status} {await done.text()}")
        await done.read()


def _path(namespace: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}"
