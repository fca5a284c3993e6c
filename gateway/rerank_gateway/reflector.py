"""The cluster as a source: one list+watch per kind. The only module that talks to the API server.

A list says what exists and replaces what was known, so a DELETE that a broken watch lost cannot keep a key
alive. Watches are short and continue where the last one ended; what none has confirmed for
`WATCH_DEADLINE_SECONDS` (the API server away, a half-open connection, a proxy that accepts and says nothing)
is listed anew. While the API server is away the last known state stays, and `auth.py` bounds for how long
keys are taken from it.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
import orjson
import structlog

from rerank_api.names import GATEWAY_PEERS_LABEL, GROUP, MANAGED_BY, MANAGED_BY_LABEL, VERSION
from rerank_gateway import records
from rerank_gateway.api_server import ApiServer
from rerank_gateway.records import Json, Kind, Record
from rerank_gateway.state import State

WATCH_SECONDS: Final = 20
WATCH_DEADLINE_SECONDS: Final = 25

_PAGE: Final = 500
_LIST_PAGE_SECONDS: Final = 15
_CONNECT_SECONDS: Final = 5
# A watch can lose an event without any error only through a fault of the API server or of a proxy before
# it; the occasional list bounds how long even that lasts.
_RELIST_SECONDS: Final = 300
_SHORTEST_WATCH_SECONDS: Final = 1.0
_BACKOFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_log = structlog.get_logger("rerank_gateway.reflector")


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind is listed, and which of its objects matter."""

    kind: Kind
    prefix: str
    plural: str
    selector: str = ""


RESOURCES: Final = (
    Resource(Kind.API_KEY, f"/apis/{GROUP}/{VERSION}", "apikeys"),
    Resource(Kind.MODEL, f"/apis/{GROUP}/{VERSION}", "modeldeployments"),
    Resource(Kind.SLICE, "/apis/discovery.k8s.io/v1", "endpointslices", f"{MANAGED_BY_LABEL}={MANAGED_BY}"),
)
# In the gateway's own namespace.
PEERS: Final = Resource(
    Kind.PEERS, "/apis/discovery.k8s.io/v1", "endpointslices", f"{GATEWAY_PEERS_LABEL}=true"
)


class ExpiredError(Exception):
    """The API server no longer knows the version to continue from (410): list again."""


class RefusedError(Exception):
    """The API server answered with something other than success."""


class Cluster:
    """A Source: the reflectors of every kind in every watched namespace (none named: all), and of the other
    gateways in this one's `own_namespace`, where it has one.
    """

    def __init__(
        self, api: ApiServer, namespaces: tuple[str, ...], state: State, own_namespace: str | None = None
    ) -> None:
        self._api = api
        watched = [(resource, namespace) for resource in RESOURCES for namespace in (namespaces or (None,))]
        if own_namespace is not None:
            watched.append((PEERS, own_namespace))
        self._reflectors = [Reflector(api, resource, namespace, state) for resource, namespace in watched]
        self._of_keys = {r.namespace: r for r in self._reflectors if r.kind is Kind.API_KEY}

    async def run(self) -> None:
        # No connection is used twice: one that lay idle may be half-open and cost its whole deadline.
        tls = self._api.tls if self._api.tls is not None else True
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors:
                tasks.create_task(reflector.run(session))

    def unsynced(self) -> list[str]:
        return [reflector.name for reflector in self._reflectors if reflector.heard_at is None]

    def keys_age(self, namespace: str | None) -> float:
        reflector = self._of_keys.get(namespace) or self._of_keys.get(None)
        if reflector is None:
            return min(reflector.age() for reflector in self._of_keys.values())
        return reflector.age()

    def ages(self) -> dict[str, float]:
        return {
            reflector.name: reflector.age()
            for reflector in self._reflectors
            if reflector.heard_at is not None
        }


class Reflector:
    """Keeps the objects of one kind, in one namespace or everywhere, equal to the API server's.

    `heard_at` is when the API server last confirmed the state (monotonic seconds): by a list, an event, a
    bookmark, or by ending a watch in its time. None before the first list. That it accepted a watch
    confirms nothing: what happened before is still to come.
    """

    def __init__(
        self,
        api: ApiServer,
        resource: Resource,
        namespace: str | None,
        state: State,
        *,
        relist_seconds: float = _RELIST_SECONDS,
    ) -> None:
        scope = f"/namespaces/{namespace}" if namespace else ""
        self.name = f"{resource.plural} in {namespace}" if namespace else resource.plural
        if resource is PEERS:
            self.name = "gateways"
        self.kind = resource.kind
        self.namespace = namespace
        self.heard_at: float | None = None
        self._api = api
        self._resource = resource
        self._state = state
        self._url = f"{api.url}{resource.prefix}{scope}/{resource.plural}"
        self._relist_seconds = relist_seconds
        self._listed_at = 0.0
        self._version: str | None = None

    def age(self) -> float:
        """Seconds since `heard_at`; inf before the first list."""
        return math.inf if self.heard_at is None else time.monotonic() - self.heard_at

    async def run(self, session: aiohttp.ClientSession) -> None:
        """List and watch until cancelled, through every fault."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                if self._must_list():
                    await self._list(session)
                    started = time.monotonic()
                await self._watch(session)
                if time.monotonic() - started >= _SHORTEST_WATCH_SECONDS:
                    self.heard_at = time.monotonic()
                    failures = 0
                    continue
                failures += 1
            except ExpiredError:
                self._version = None
                failures += 1
                _log.info("watch_expired", watch=self.name)
            except (aiohttp.ClientError, RefusedError, OSError, ValueError, KeyError, TypeError) as error:
                failures += 1
                _log.warning("watch_failed", watch=self.name, failures=failures, reason=_reason(error))
            pause = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS)) - 1]
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads gateways

    def _must_list(self) -> bool:
        listed = time.monotonic() - self._listed_at
        return self._version is None or self.age() >= WATCH_DEADLINE_SECONDS or listed > self._relist_seconds

    async def _list(self, session: aiohttp.ClientSession) -> None:
        """Replace everything by what a consistent read returns (resourceVersion unset)."""
        found: list[Record] = []
        token = ""
        started = time.monotonic()
        while True:
            query = {"limit": str(_PAGE), **self._selector(), **({"continue": token} if token else {})}
            timeout = aiohttp.ClientTimeout(total=_LIST_PAGE_SECONDS, connect=_CONNECT_SECONDS)
            async with session.get(
                self._url, params=query, headers=self._api.headers(), timeout=timeout
            ) as response:
                await _check(response)
                page = orjson.loads(await response.read())
            for body in page["items"] or ():  # Go writes an empty list as null now and then
                record = self._parse(body)
                if record is not None:
                    found.append(record)
            token = page["metadata"].get("continue") or ""
            if not token:
                break
        self._state.replace(self.kind, found, namespace=self.namespace)
        self._version = page["metadata"]["resourceVersion"]
        self._listed_at = self.heard_at = started

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        """Follow changes until the API server ends the watch, as it does after `WATCH_SECONDS`."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": self._version or "",
            **self._selector(),
        }
        timeout = aiohttp.ClientTimeout(total=WATCH_DEADLINE_SECONDS, connect=_CONNECT_SECONDS)
        async with session.get(
            self._url, params=query, headers=self._api.headers(), timeout=timeout
        ) as response:
            await _check(response)
            async for line in _lines(response.content):
                self._apply(orjson.loads(line))
                self.heard_at = time.monotonic()

    def _apply(self, event: Json) -> None:
        kind, body = event["type"], event["object"]
        if kind == "ERROR":
            # Whatever it was, the watch cannot be trusted further: start from what exists.
            self._version = None
            if body.get("code") == 410:
                raise ExpiredError
            raise RefusedError(f"{body.get('code')} {body.get('reason')} in the stream")
        if kind == "DELETED":
            self._state.remove(self.kind, records.object_id(body))
        elif kind in ("ADDED", "MODIFIED"):
            record = self._parse(body)
            if record is None:
                self._state.remove(self.kind, records.object_id(body))
            else:
                self._state.put(self.kind, record)
        self._version = body["metadata"]["resourceVersion"]

    def _parse(self, body: Json) -> Record | None:
        """None for an object that makes no sense: it is as if it were not there."""
        try:
            return records.parse(self.kind, body)
        except ValueError as error:
            _log.warning("object_ignored", watch=self.name, reason=str(error))
            return None

    def _selector(self) -> dict[str, str]:
        return {"labelSelector": self._resource.selector} if self._resource.selector else {}


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 410:
        raise ExpiredError
    if response.status != 200:
        raise RefusedError(f"HTTP {response.status}")


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; aiohttp's own reader gives up on long ones."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
