"""The only module that talks to the API server.

Called by observe (reads), the reconcilers (writes), events, lease and main. Objects go in and come out as
plain dicts. Every write but the Lease's passes the fence first: a process that is no longer leader, or that
slept through its lease, must not write.
"""

import math
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from rerank_api import names
from rerank_operator.api_error import ApiError, NotLeaderError, decode
from rerank_operator.echoes import Echoes
from rerank_operator.resources import (
    CATALOG_MODEL,
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    LEASE,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    Object,
    Resource,
)

REQUEST_TIMEOUT_SECONDS: Final = 15.0
_APPLY: Final = "application/apply-patch+yaml"
# Else the API server parses what is applied a second time, to warn of fields that it does not know.
_UNCHECKED: Final = {"fieldValidation": "Ignore"}
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_DRY_RUN: Final = "dryRun"
# Whole objects, with all that managers have to say of their fields: ten times as large in memory.
_PAGE: Final = 100
# Of one object, so many are more than anybody reads.
_WARNINGS: Final = 500
# No object ever has it: an apply that asks for it makes a new object, and is refused where there is one.
_OF_NO_OBJECT: Final = "1"

_APPLIED: Final = (
    DEPLOYMENT,
    SERVICE,
    POD_DISRUPTION_BUDGET,
    NETWORK_POLICY,
    CONFIG_MAP,
    SECRET,
    CATALOG_MODEL,
)
_BY_KIND: Final = {(r.api_version, r.kind): r for r in _APPLIED}


@dataclass(slots=True)
class Cluster:
    """A connection to the API server.

    Attributes:
        api: the client, with host and credentials.
        may_write_for: the fence; asked before each write, how many seconds it may take. It is given up after
            that: what was not sent when the process fell asleep is not sent when it wakes.
        on_write: told of each write that the API server carried out (metrics): the resource, and behind a
            slash what a manager of its own writes ("apikeys/usage").
        own: the versions that looks made: of children and, with the operator's own field manager, statuses.
    """

    api: client.ApiClient
    may_write_for: Callable[[], float] = lambda: math.inf
    on_write: Callable[[str], None] = lambda _what: None
    own: Echoes = field(default_factory=Echoes)

    @classmethod
    async def connect(cls, *, in_cluster: bool) -> Self:
        """Connect with the pod's service account, or with the kubeconfig's current context."""
        configuration = client.Configuration()
        if in_cluster:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.client_session_kwargs = {"trust_env": False}
        return cls(api=client.ApiClient(configuration=configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self.api.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The live object, or None. `namespace` is None for what belongs to the cluster."""
        try:
            return await self._request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.missing:
                return None
            raise

    async def warnings(self, namespace: str, uid: str) -> list[Object]:
        """The Events of type Warning about the object with this uid, of the last hour as a rule."""
        query = {"fieldSelector": f"regarding.uid={uid},type=Warning", "limit": str(_WARNINGS)}
        found: list[Object] = (await self._request("GET", EVENT.path(namespace), query=query))["items"]
        return found

    async def list(self, resource: Resource, namespace: str | None, *, labels: str = "") -> list[Object]:
        """All objects of a namespace (None: of the cluster) with these labels."""
        return [item async for item in self.pages(resource, namespace, labels=labels)]

    async def pages(
        self, resource: Resource, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Object]:
        """The same, fetched page by page, so that thousands of objects are never in memory at once."""
        accept = _METADATA_LIST if metadata_only else "application/json"
        token = ""
        while True:
            query = {"limit": str(_PAGE), "labelSelector": labels, "continue": token}
            page = await self._request("GET", resource.path(namespace), query=query, accept=accept)
            for item in page.get("items") or ():  # null, where metadata is all that was asked for
                yield item
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    async def serves(self, group_version: str) -> set[str]:
        """The plural names that the API server serves in a group version; empty when it does not know it."""
        try:
            found = await self._request("GET", f"/apis/{group_version}")
        except ApiError as error:
            if error.status == 404:
                return set()
            raise
        return {item["name"] for item in found.get("resources", ())}

    async def apply(self, intent: Object, *, resource_version: str | None) -> Object:
        """Server-side apply of a child, or of a catalog entry.

        With `resource_version` the object must be the one that the plan was made from, and fields that
        others set are taken over. Without, there must be none yet: one that is there is a conflict.

        Returns:
            The metadata of the object as it is now, under "metadata".
        """
        resource, path, body, query = _application(intent, resource_version)
        done = await self._write(
            "PATCH", resource, path, body=body, query=query, content_type=_APPLY, accept=_METADATA_ONLY
        )
        self.own.note(done)
        return done

    async def delete(self, live: Object) -> None:
        """Delete a child, if it is still the one that the plan was made from."""
        resource, metadata = _BY_KIND[live["apiVersion"], live["kind"]], live["metadata"]
        preconditions = {key: metadata[key] for key in ("uid", "resourceVersion")}
        await self._write(
            "DELETE",
            resource,
            resource.path(metadata["namespace"], metadata["name"]),
            body={"preconditions": preconditions},
        )

    async def rehearse(self, intent: Object, *, resource_version: str | None) -> Object:
        """What `apply` would answer. Nothing is stored."""
        _, path, body, query = _application(intent, resource_version)
        query["dryRun"] = "All"
        return await self._request("PATCH", path, body=body, query=query, content_type=_APPLY)

    async def apply_secret(
        self, intent: Object, *, field_manager: str, resource_version: str | None, dry_run: bool = False
    ) -> Object:
        """Server-side apply of a Secret without ever receiving one.

        Args:
            intent: the Secret.
            field_manager: whose fields of it these are.
            resource_version: which Secret it has to be; "" where there must be none yet, None for any.
            dry_run: whether nothing is to be changed.

        Returns:
            The Secret's metadata. Of a dry run that would make one it has no resourceVersion.
        """
        metadata = intent["metadata"]
        if resource_version is not None:
            intent = _fenced(intent, resource_version or None)
        query = {"fieldManager": field_manager, "force": "false"}
        done = await self._write(
            "PATCH",
            SECRET,
            SECRET.path(metadata["namespace"], metadata["name"]),
            body=intent,
            query=query | _UNCHECKED | ({_DRY_RUN: "All"} if dry_run else {}),
            content_type=_APPLY,
            accept=_METADATA_ONLY,
        )
        found: Object = done["metadata"]
        return found

    async def delete_secret(
        self, namespace: str, name: str, *, uid: str, resource_version: str | None
    ) -> None:
        """Delete a Secret, if it is still that one; with `resource_version` also as it was then."""
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        try:
            await self._write(
                "DELETE",
                SECRET,
                SECRET.path(namespace, name),
                body={"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions},
                accept=_METADATA_ONLY,
            )
        except ApiError as error:
            if not (error.missing or (error.conflict and resource_version is None)):
                raise

    async def create_secret(self, secret: Object) -> bool:
        """Create a Secret; False when there is one of that name already."""
        try:
            await self._write(
                "POST",
                SECRET,
                SECRET.path(secret["metadata"]["namespace"]),
                body=secret,
                accept=_METADATA_ONLY,
            )
        except ApiError as error:
            if error.conflict:
                return False
            raise
        return True

    async def apply_status(
        self,
        resource: Resource,
        live: Object,
        status: Object,
        *,
        field_manager: str = names.FIELD_MANAGER,
    ) -> Object:
        """Server-side apply of a status onto exactly the object observed (uid and resourceVersion)."""
        done = await self._write(
            "PATCH",
            resource,
            resource.path(live["metadata"]["namespace"], live["metadata"]["name"], "status"),
            body=_exactly(resource, live) | {"status": status},
            query={"fieldManager": field_manager, "force": "true"} | _UNCHECKED,
            content_type=_APPLY,
            part=field_manager.removeprefix(names.FIELD_MANAGER),
        )
        if field_manager == names.FIELD_MANAGER:  # the others write onto what no look has seen yet
            self.own.note(done)
        return done

    async def confirm(self, resource: Resource, live: Object) -> None:
        """Return if the object still is exactly the one observed. Nothing is stored.

        Raises:
            ApiError: it is not (a conflict), or that could not be asked.
        """
        path = resource.path(live["metadata"]["namespace"], live["metadata"]["name"], "status")
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true", _DRY_RUN: "All"} | _UNCHECKED
        body = _exactly(resource, live)
        await self._request("PATCH", path, body=body, query=query, content_type=_APPLY, accept=_METADATA_ONLY)

    async def create_event(self, event: Object) -> None:
        """Post an Event."""
        await self._write("POST", EVENT, EVENT.path(event["metadata"]["namespace"]), body=event)

    async def create_lease(self, lease: Object) -> Object:
        """Create a Lease. Not fenced: it is what the fence is made of."""
        return await self._request("POST", LEASE.path(lease["metadata"]["namespace"]), body=lease)

    async def replace_lease(self, lease: Object, *, deadline: float) -> Object:
        """Replace a Lease; its resourceVersion makes two claimants exclude one another."""
        metadata = lease["metadata"]
        path = LEASE.path(metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, body=lease, deadline=deadline)

    async def _write(
        self,
        method: str,
        resource: Resource,
        path: str,
        *,
        body: Object,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        part: str = "",
    ) -> Object:
        seconds = self.may_write_for()
        if seconds <= 0:
            raise NotLeaderError
        done = await self._request(
            method,
            path,
            body=body,
            query=query,
            content_type=content_type,
            accept=accept,
            deadline=min(seconds, REQUEST_TIMEOUT_SECONDS),
        )
        if not query or _DRY_RUN not in query:
            self.on_write(resource.plural + part)
        return done

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        deadline: float = REQUEST_TIMEOUT_SECONDS,
    ) -> Object:
        url = path + ("?" + urlencode({k: v for k, v in query.items() if v}) if query else "")
        try:
            # Bodies are plain JSON: to have the client look for models in them takes it longer than the rest.
            response = await self.api.call_api(
                method,
                self.api.configuration.host + url,
                await self._headers(accept, content_type),
                body,
                _request_timeout=aiohttp.ClientTimeout(total=deadline, connect=5),
            )
            data = await response.read()  # type: ignore[no-untyped-call]
        except (TimeoutError, aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {type(error).__name__}") from None
        return decode(response.status, data, f"{method} {path}")

    async def _headers(self, accept: str, content_type: str) -> dict[str, str]:
        """With the token as it is now: that of a service account changes."""
        headers = {**self.api.default_headers, "Accept": accept, "Content-Type": content_type}
        token = await self.api.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return headers | ({"Authorization": token} if token else {})


def _application(
    intent: Object, resource_version: str | None
) -> tuple[Resource, str, Object, dict[str, str]]:
    """Resource, path, body and query of a server-side apply."""
    resource = _BY_KIND[intent["apiVersion"], intent["kind"]]
    metadata = intent["metadata"]
    force = str(resource_version is not None).lower()
    query = {"fieldManager": names.FIELD_MANAGER, "force": force} | _UNCHECKED
    path = resource.path(metadata.get("namespace"), metadata["name"])
    return resource, path, _fenced(intent, resource_version), query


def _exactly(resource: Resource, live: Object) -> Object:
    """The beginning of an apply onto the object observed and no other."""
    metadata = {key: live["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def _fenced(intent: Object, resource_version: str | None) -> Object:
    """The intent for exactly the object with this version; None where there must be no object."""
    version = resource_version or _OF_NO_OBJECT
    return {**intent, "metadata": {**intent["metadata"], "resourceVersion": version}}
