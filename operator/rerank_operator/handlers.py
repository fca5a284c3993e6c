"""Every kopf handler, as a table of contents: what wakes whom. Nothing is decided here.

kopf sees to the watches (lists, bookmarks, reconnects). Handlers only put a key into the queue; a handler for
`event` leaves no annotation, no finalizer and no status on the object.
"""

from collections.abc import Iterator
from itertools import chain, repeat
from random import uniform
from typing import Any, Final

import kopf

from rerank_api import names
from rerank_operator.catalog import Users
from rerank_operator.queue import KeyedQueue

Key = tuple[str, str, str]
"""Kind, namespace and name of a resource."""

MODEL: Final = "ModelDeployment"
API_KEY: Final = "APIKey"

_CHILDREN: Final = (("apps", "v1", "deployments"), ("", "v1", "services"), ("", "v1", "pods"))
_CHILD_LABELS: Final = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY},{names.MODEL_LABEL}"


class Backoffs:
    """Seconds to wait between attempts to reach the API server: growing, jittered, without end."""

    def __iter__(self) -> Iterator[float]:
        for seconds in chain((1, 2, 3, 5, 8), repeat(13)):
            yield seconds * uniform(0.75, 1.25)  # noqa: S311  # spreads retries, guards nothing


def registry(
    queue: KeyedQueue[Key], users: Users, *, in_cluster: bool, catalog_models: bool
) -> kopf.OperatorRegistry:
    """All handlers. `users` tells which models an entry concerns, where `catalog_models` may be read."""
    found = kopf.OperatorRegistry()
    kopf.on.login(registry=found)(
        kopf.login_with_service_account if in_cluster else kopf.login_with_kubeconfig
    )

    @kopf.on.event(names.GROUP, names.VERSION, "modeldeployments", registry=found)
    async def on_model(namespace: str | None, name: str | None, **_: Any) -> None:
        queue.add((MODEL, namespace or "", name or ""))

    @kopf.on.event(names.GROUP, names.VERSION, "apikeys", registry=found)
    async def on_api_key(namespace: str | None, name: str | None, **_: Any) -> None:
        queue.add((API_KEY, namespace or "", name or ""))

    async def on_catalog_model(name: str | None, **_: Any) -> None:
        for model in users.of(name or ""):
            queue.add((MODEL, *model))

    if catalog_models:
        kopf.on.event(names.GROUP, names.VERSION, "catalogmodels", registry=found)(on_catalog_model)

    async def on_child(namespace: str | None, labels: Any, **_: Any) -> None:
        if names.MODEL_LABEL in labels:
            queue.add((MODEL, namespace or "", labels[names.MODEL_LABEL]))

    for group, version, plural in _CHILDREN:
        kopf.on.event(group, version, plural, registry=found)(on_child)
    return found


def settings() -> kopf.OperatorSettings:
    """Settings of kopf: short timeouts, so that a dead watch is noticed; nothing written to any object."""
    found = kopf.OperatorSettings()
    found.watching.server_timeout = 25
    found.watching.client_timeout = 30
    found.networking.request_timeout = 15
    found.networking.connect_timeout = 5
    found.networking.error_backoffs = Backoffs()  # read anew for each request
    found.process.ultimate_exiting_timeout = 30
    found.posting.enabled = False
    found.scanning.disabled = True  # neither namespaces nor CRDs are watched: no right to list them is needed
    found.persistence.finalizer = f"{names.GROUP}/finalizer"
    for group, version, plural in _CHILDREN:
        found.watching.label_selectors[group, version, plural] = _CHILD_LABELS
    return found
