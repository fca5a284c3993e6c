"""The two ASGI applications: the public one that clients call, the internal one for probes and Prometheus.

The public one is FastAPI's documentation around raw routes: a framework's routing and validation would cost
more than all that the gateway does to a request.
"""

import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

import structlog
from fastapi import FastAPI

from rerank_gateway import errors
from rerank_gateway.auth import Authenticator
from rerank_gateway.dialects import paths
from rerank_gateway.errors import ApiError, ClientGoneError
from rerank_gateway.exchange import Exchange, Receive, Scope, Send
from rerank_gateway.in_flight import InFlight
from rerank_gateway.metrics import CONTENT_TYPE, Metrics
from rerank_gateway.source import Source
from rerank_gateway.usage import Usage

Handler = Callable[[Exchange], Awaitable[None]]
Query = Mapping[str, str]
Page = Callable[[Query], bytes]
"""A page of the internal port: the JSON that answers a query."""

_TEXT: Final = b"text/plain; charset=utf-8"
_OLD_SECONDS: Final = 60
CLIENT_GONE: Final = 499  # nginx's status for a client that left: seen in logs and metrics, never sent

_log = structlog.get_logger("rerank_gateway")


@dataclass(slots=True)
class Lifecycle:
    """`draining` from the first SIGTERM on: serve what comes, but send clients elsewhere. `stopped` when the
    last request is answered. `process` is a random name, which every answer of the internal port carries.
    """

    draining: bool = False
    stopped: bool = False
    process: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def phase(self) -> str:
        if self.stopped:
            return "stopped"
        return "draining" if self.draining else "serving"


class PublicApp:
    """Port 8080. `routes` maps a path to its one method and handler. `log_sample`: the part of the requests
    that are logged; failures (5xx) all are.
    """

    def __init__(
        self,
        routes: dict[str, tuple[str, Handler]],
        metrics: Metrics,
        usage: Usage,
        lifecycle: Lifecycle,
        in_flight: InFlight,
        *,
        log_sample: float,
    ) -> None:
        self._routes = routes
        self._metrics = metrics
        self._usage = usage
        self._lifecycle = lifecycle
        self._log_sample = log_sample
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, in_flight=self._in_flight, closing=self._lifecycle.draining)
        self._metrics.in_flight.inc()
        try:
            try:
                await self._serve(exchange)
            finally:
                await exchange.finish()
        finally:
            self._metrics.in_flight.dec()
            self._record(exchange, time.monotonic() - exchange.arrived)

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
        key, model, notes = exchange.key, exchange.model, exchange.notes
        namespace, name = model.id if model is not None else ("", "")
        self._metrics.answered(namespace, name, exchange.status, seconds)
        if key is not None:
            documents, tokens = notes.get("documents", 0), notes.get("tokens", 0)
            self._usage.record(
                key, model, exchange.status, documents=documents, tokens=tokens, now=time.time()
            )
            if model is not None and exchange.status == 200:
                self._metrics.used(namespace, name, documents, tokens)
        if exchange.status < 500 and random.random() >= self._log_sample:  # noqa: S311 - guards nothing
            return
        caller = {} if key is None else {"key": key.key_id, "namespace": key.id.namespace}
        _log.info(
            "request",
            request_id=exchange.head.request_id,
            method=exchange.method,
            path=errors.shown(exchange.path),
            status=exchange.status,
            ms=round(seconds * 1000, 2),
            **caller,
            **({} if key is None or model is None else {"model": model.seen_from(key.id.namespace)}),
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
    """Port 8081: `/livez`, `/readyz`, `/metrics` and `pages`, which are JSON. For the kubelet, Prometheus,
    the operator and other gateways, not for clients. Every answer tells which process gave it.
    """

    def __init__(
        self,
        source: Source,
        auth: Authenticator,
        metrics: Metrics,
        lifecycle: Lifecycle,
        pages: Mapping[str, Page],
        *,
        unasked: Callable[[], list[str]],
    ) -> None:
        self._source = source
        self._auth = auth
        self._metrics = metrics
        self._unasked = unasked
        self._lifecycle = lifecycle
        self._pages = pages
        self._process = ((b"x-rerank-process", lifecycle.process.encode("ascii")),)
        self._in_flight = InFlight(0)  # nothing here takes a body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, in_flight=self._in_flight, closing=False)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        status, body, content_type = await self._answer(exchange.method, exchange.path, query)
        await exchange.respond(status, body, headers=self._process, content_type=content_type)

    async def _answer(self, method: str, path: str, query: Query) -> tuple[int, bytes, bytes]:
        page = self._pages.get(path)
        if method != "GET":
            return 405, b"GET\n", _TEXT
        if page is not None:
            return 200, page(query), b"application/json"
        if path == "/livez":
            return 200, b"alive\n", _TEXT
        if path == "/readyz":
            missing = self._missing()
            return 503 if missing else 200, _lines([*(missing or ["ready"]), *self._old()]), _TEXT
        if path == "/metrics":
            return 200, await self._metrics.text(), CONTENT_TYPE
        return 404, _lines(["/livez", "/readyz", "/metrics", *self._pages]), _TEXT

    def _missing(self) -> list[str]:
        draining = ["draining"] if self._lifecycle.draining else []
        unsynced = [f"not listed yet: {name}" for name in self._source.unsynced()]
        unsynced += [f"not asked yet: {name}" for name in self._unasked()]
        stale = ["no key is accepted: none has been confirmed for too long"] if self._auth.stale(None) else []
        return draining + (unsynced or stale)

    def _old(self) -> list[str]:
        """What is served from the last known state, which is no reason to stop serving."""
        return [
            f"not confirmed for {age:.0f} seconds: {name}"
            for name, age in self._source.ages().items()
            if age > _OLD_SECONDS
        ]


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
