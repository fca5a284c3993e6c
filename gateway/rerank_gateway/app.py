"""The two ASGI applications: the public one that clients call, the internal one for probes and Prometheus.

The public one is FastAPI's documentation around raw routes: a framework's routing and validation would cost
more than all that the gateway does to a request.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

import structlog
from fastapi import FastAPI

from rerank_gateway import errors
from rerank_gateway.dialects import paths
from rerank_gateway.errors import ApiError, ClientGoneError
from rerank_gateway.exchange import Exchange, Receive, Scope, Send
from rerank_gateway.metrics import CONTENT_TYPE, Metrics
from rerank_gateway.source import Source

Handler = Callable[[Exchange], Awaitable[None]]

CLIENT_GONE: Final = 499  # nginx's status for a client that left: seen in logs and metrics, never sent

_log = structlog.get_logger("rerank_gateway")


@dataclass(slots=True)
class Lifecycle:
    """`draining` from the first SIGTERM on: serve what comes, but send clients elsewhere."""

    draining: bool = False


class PublicApp:
    """Port 8080. `routes` maps a path to its one method and handler."""

    def __init__(
        self, routes: dict[str, tuple[str, Handler]], metrics: Metrics, lifecycle: Lifecycle
    ) -> None:
        self._routes = routes
        self._metrics = metrics
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        exchange = Exchange(scope, receive, send, closing=self._lifecycle.draining)
        self._metrics.in_flight.inc()
        try:
            await self._serve(exchange)
        finally:
            self._metrics.in_flight.dec()
            self._record(exchange, time.perf_counter() - started)

    async def _serve(self, exchange: Exchange) -> None:
        try:
            try:
                await self._handler(exchange)(exchange)
            except ApiError as error:
                exchange.notes["error"] = error.code
                await exchange.refuse(error)
        except ClientGoneError:
            exchange.status = CLIENT_GONE
        except Exception:
            _log.exception("request_failed", request_id=exchange.head.request_id)
            if exchange.status:
                raise  # the answer is on its way: only cutting the connection says that it is broken
            await exchange.refuse(errors.internal())

    def _handler(self, exchange: Exchange) -> Handler:
        if exchange.head.problem is not None:
            raise exchange.head.problem
        route = self._routes.get(exchange.path) or self._routes.get(paths.known(exchange.path))
        if route is None:
            raise errors.path_not_found()
        method, handler = route
        if exchange.method != method:
            raise errors.method_not_allowed(method)
        return handler

    def _record(self, exchange: Exchange, seconds: float) -> None:
        notes = exchange.notes
        model = notes.get("model", "")
        namespace = notes["namespace"] if model else ""
        self._metrics.answered(namespace, model, exchange.status, seconds)
        _log.info(
            "request",
            request_id=exchange.head.request_id,
            method=exchange.method,
            path=errors.shown(exchange.path),
            status=exchange.status,
            ms=round(seconds * 1000, 2),
            **notes,
        )


def routes(rerank: Handler, models: Handler, documentation: FastAPI) -> dict[str, tuple[str, Handler]]:
    """Every public path."""

    async def documented(exchange: Exchange) -> None:
        await exchange.delegate(documentation)

    return {
        **dict.fromkeys((*paths.PATHS, paths.PER_MODEL), ("POST", rerank)),
        "/v1/models": ("GET", models),
        "/models": ("GET", models),
        "/openapi.json": ("GET", documented),
        "/docs": ("GET", documented),
    }


class InternalApp:
    """Port 8081: `/livez`, `/readyz`, `/metrics`. For the kubelet and Prometheus, not for clients."""

    def __init__(self, source: Source, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._source = source
        self._metrics = metrics
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, closing=False)
        if exchange.path == "/livez":
            await _say(exchange, 200, ("alive",))
        elif exchange.path == "/readyz":
            missing = self._missing()
            await _say(exchange, 503 if missing else 200, missing or ("ready",))
        elif exchange.path == "/metrics":
            await exchange.respond(200, self._metrics.text(), content_type=CONTENT_TYPE)
        else:
            await _say(exchange, 404, ("/livez, /readyz, /metrics",))

    def _missing(self) -> list[str]:
        draining = ["draining"] if self._lifecycle.draining else []
        return draining + [f"not listed yet: {name}" for name in self._source.unsynced()]


async def _say(exchange: Exchange, status: int, lines: Iterable[str]) -> None:
    body = "".join(f"{line}\n" for line in lines).encode()
    await exchange.respond(status, body, content_type=b"text/plain; charset=utf-8")
