"""Every kopf handler, as a table of contents: what wakes whom. Nothing is decided here.

kopf sees to the watches (lists, bookmarks, reconnects). Handlers only put a key into the queue; a handler for
`event` leaves no annotation, no finalizer and no status on the object.
"""

from typing import Any, Final

import kopf

from rerank_api import names
from rerank_operator import resources, watches
from rerank_operator.catalog import Users
from rerank_operator.echoes import Version, version_of
from rerank_operator.kopf_client import REQUEST_SECONDS, Backoffs
from rerank_operator.listed import Listed
from rerank_operator.login import Login
from rerank_operator.queue import KeyedQueue
from rerank_operator.resources import Resource

Key = tuple[str, str, str]
"""Kind, namespace and name of a resource."""

MODEL: Final = "ModelDeployment"
API_KEY: Final = "APIKey"

_OURS: Final = (resources.MODEL_DEPLOYMENT, resources.API_KEY)
_CHILDREN: Final = (resources.DEPLOYMENT, resources.SERVICE, resources.POD)
# Objects in an answer while kopf starts: they are in memory together, those of every kind.
PAGE: Final = 200
# Within the chart's terminationGracePeriodSeconds, usage and Lease included.
STOP_SECONDS: Final = 25

_CHILD_LABELS: Final = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY},{names.MODEL_LABEL}"


def watched(namespaces: tuple[str, ...], *, catalog_models: bool) -> dict[str, str]:
    """What these handlers make kopf watch: the path of each watch, and what people call it."""
    found = {
        resource.path(namespace): f"{namespace}/{resource.plural}" if namespace else resource.plural
        for namespace in namespaces or (None,)
        for resource in (*_OURS, *_CHILDREN)
    }
    if catalog_models:
        found[resources.CATALOG_MODEL.path(None)] = resources.CATALOG_MODEL.plural
    return found


def registry(
    queue: KeyedQueue[Key], listed: Listed, users: Users, login: Login, *, catalog_models: bool
) -> kopf.OperatorRegistry:
    """All handlers. `users` tells which models an entry concerns, where `catalog_models` may be read."""
    found = kopf.OperatorRegistry()
    kopf.on.login(registry=found)(login)

    def tell(key: Key, version: Version) -> None:
        listed.told(key, version)
        queue.tell(key, version)

    @kopf.on.event(*_selector(resources.MODEL_DEPLOYMENT), registry=found)
    async def on_model(namespace: str | None, name: str | None, meta: Any, **_: Any) -> None:
        tell((MODEL, namespace or "", name or ""), version_of(meta))

    @kopf.on.event(*_selector(resources.API_KEY), registry=found)
    async def on_api_key(namespace: str | None, name: str | None, meta: Any, **_: Any) -> None:
        tell((API_KEY, namespace or "", name or ""), version_of(meta))

    async def on_catalog_model(name: str | None, **_: Any) -> None:
        for model in users.of(name or ""):
            queue.add((MODEL, *model))

    if catalog_models:
        kopf.on.event(*_selector(resources.CATALOG_MODEL), registry=found)(on_catalog_model)

    async def on_child(namespace: str | None, labels: Any, meta: Any, **_: Any) -> None:
        if names.MODEL_LABEL in labels:
            queue.tell((MODEL, namespace or "", labels[names.MODEL_LABEL]), version_of(meta))

    for resource in _CHILDREN:
        kopf.on.event(*_selector(resource), registry=found)(on_child)
    return found


def settings() -> kopf.OperatorSettings:
    """Settings of kopf: short timeouts, so that a dead watch is noticed; nothing written to any object."""
    found = kopf.OperatorSettings()
    found.watching.server_timeout = watches.SERVER_SECONDS
    found.watching.client_timeout = watches.WATCH_SECONDS
    found.watching.chunk_size = PAGE
    # For so long kopf keeps a task and the last event of each object: as it starts, of all there are.
    found.queueing.idle_timeout = 0.1
    found.networking.request_timeout = REQUEST_SECONDS
    found.networking.connect_timeout = 5
    found.networking.error_backoffs = Backoffs()  # read anew for each request
    found.process.ultimate_exiting_timeout = STOP_SECONDS
    found.posting.enabled = False
    found.scanning.disabled = True  # neither namespaces nor CRDs are watched: no right to list them is needed
    found.persistence.finalizer = f"{names.GROUP}/finalizer"
    found.persistence.diffbase_storage = _Unkept()
    for resource in _CHILDREN:
        found.watching.label_selectors[*_selector(resource)] = _CHILD_LABELS
    return found


class _Unkept(kopf.DiffBaseStorage):
    """kopf would copy each object of each event, to tell what changed. No handler of ours asks for that."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("nothing is stored on objects")


def _selector(resource: Resource) -> tuple[str, str, str]:
    group, _, version = resource.api_version.rpartition("/")
    return group, version, resource.plural
