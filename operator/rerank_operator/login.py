"""Gives kopf its credentials, with an HTTP client that tells how its watches are."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import kopf

from rerank_operator.watches import Watches

Login = Callable[..., Awaitable[kopf.AiohttpSession | None]]


def login(watches: Watches, *, in_cluster: bool) -> Login:
    """A login handler. It is asked when kopf starts, and when the API server refused the last credentials."""
    find = kopf.login_with_service_account if in_cluster else kopf.login_with_kubeconfig
    last: kopf.ConnectionInfo | None = None

    async def log_in(**arguments: Any) -> kopf.AiohttpSession | None:
        nonlocal last
        info = find(**arguments)
        if info is None or info == last:
            return None  # none at all, or none but those that were refused: kopf ends
        last = info
        # As kopf would make it, and kopf closes it.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            trust_env=False,
            trace_configs=[watches.trace(info.server)],
        )
        return kopf.AiohttpSession(
            server=info.server, default_namespace=info.default_namespace, aiohttp_session=session
        )

    return log_in
