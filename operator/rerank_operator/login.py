"""Gives kopf its credentials, with an HTTP client that tells how its watches are.

The client asks for the metadata of objects alone. Handlers need names and labels and nothing else, and kopf
would parse, copy and keep whole objects by the thousand.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import kopf

from rerank_operator.watches import Watches

# Before credentials that were refused are tried again.
REFUSED_SECONDS: Final = 4.0
_METADATA: Final = "application/json;as={};g=meta.k8s.io;v=v1,application/json"

Login = Callable[..., Awaitable[kopf.AiohttpSession | None]]


def login(watches: Watches, *, in_cluster: bool) -> Login:
    """A login handler. It is asked when kopf starts, and when the API server refused the last credentials."""
    find = kopf.login_with_service_account if in_cluster else kopf.login_with_kubeconfig
    last: kopf.ConnectionInfo | None = None

    async def log_in(**arguments: Any) -> kopf.AiohttpSession | None:
        nonlocal last
        info = find(**arguments)
        if info is not None and info == last:
            # An API server that starts refuses what it will take in a moment; a token may just be renewed.
            await asyncio.sleep(REFUSED_SECONDS)
            info = find(**arguments)
        if info is None:
            return None  # kopf ends
        last = info
        # As kopf would make it, and kopf closes it.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            trust_env=False,
            middlewares=(_ask_for_metadata,),
            response_class=_Response,
            trace_configs=[watches.trace(info.server)],
        )
        return kopf.AiohttpSession(
            server=info.server, default_namespace=info.default_namespace, aiohttp_session=session
        )

    return log_in


async def _ask_for_metadata(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches."""
    what = "PartialObjectMetadata" if "watch" in request.url.query else "PartialObjectMetadataList"
    request.headers["Accept"] = _METADATA.format(what)
    return await send(request)


class _Response(aiohttp.ClientResponse):
    """The API server writes null for the items of an empty list of metadata, which kopf does not expect."""

    async def json(self, **arguments: Any) -> Any:
        found = await super().json(**arguments)
        if isinstance(found, dict) and found.get("items", ()) is None:
            found["items"] = []
        return found
