"""Gives kopf its credentials, with an HTTP client that suits it and tells how its watches are."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import kopf

from rerank_operator import kopf_client
from rerank_operator.watches import Watches

# Before credentials that were refused are tried again.
REFUSED_SECONDS: Final = 4.0

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
        return kopf.AiohttpSession(
            server=info.server,
            default_namespace=info.default_namespace,
            aiohttp_session=kopf_client.session(
                headers=info.as_http_headers(),
                context=info.as_ssl_context(),
                trace=watches.trace(info.server),
            ),
        )

    return log_in
