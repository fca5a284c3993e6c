"""How networks and API servers fail, one class each. The Lease is let through: to lose it is to end."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from aiohttp import web

from tests.apiserver.api import Api, Object, Refused, eventually
from tests.apiserver.fault_proxy import Asked, Exchange, Fault, error_line

_PAGE: Final = "<html>où êtes-vous ?</html>".encode("latin-1")  # it says nothing of its encoding
_FOR_EVER: Final = 3600.0
_DATE: Final = "Wed, 21 Oct 2026 07:28:00 GMT"
_HALF_AN_EVENT: Final = b'{"type":"MODIFIED","object":{"apiVersion":"v1","kind":"Pod","meta'

# Collections that the operator reads, each with the kind of its items.
_READ: Final = (
    ("/apis/rerank.dev/v1alpha1", "modeldeployments", "ModelDeployment"),
    ("/apis/rerank.dev/v1alpha1", "apikeys", "APIKey"),
    ("/apis/rerank.dev/v1alpha1", "catalogmodels", "CatalogModel"),
    ("/api/v1", "configmaps", "ConfigMap"),
    ("/api/v1", "services", "Service"),
    ("/api/v1", "pods", "Pod"),
    ("/api/v1", "nodes", "Node"),
    ("/apis/apps/v1", "deployments", "Deployment"),
    ("/apis/policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("/apis/networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    ("/apis/events.k8s.io/v1", "events", "Event"),
)
_PATH: Final = re.compile(
    r"/(api|apis/[^/]+)/[^/]+(/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)(/(?P<name>[^/]+))?"
)


class _ButTheLease(Fault):
    """What happens to everything else is `fail`'s to say."""

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        return await (exchange.pass_on() if exchange.asked.is_lease else self.fail(exchange))

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        return await exchange.pass_on()


class Breaking(_ButTheLease):
    """Connections break: every other time after the request got through."""

    _count = 0

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        self._count += 1
        if self._count % 2 and not exchange.asked.is_watch:
            await exchange.upstream()
        return exchange.break_off()

    def interrupt(self, _asked: Asked) -> bytes:
        return b""


class Slow(_ButTheLease):
    """Every request takes so many seconds to get through: whether anybody still waits for it or not."""

    def __init__(self, seconds: float) -> None:
        self.late_seconds = seconds

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(self.late_seconds)
        return await exchange.pass_on()


class HalfOpen(_ButTheLease):
    """Connections are taken and nothing comes back, on none that was open then, for ever."""

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(_FOR_EVER)
        return exchange.break_off()

    def keeps_silent(self, asked: Asked) -> bool:
        return asked.is_watch


class Refusing(_ButTheLease):
    """Everything is refused with this status."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        self._status, self._reason, self._headers = status, reason, headers

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        return exchange.refuse(self._status, self._reason, "a fault of the test", **self._headers)

    def interrupt(self, _asked: Asked) -> bytes:
        return b""


class NotOurs(_ButTheLease):
    """Something on the way answers in place of the API server, with a page for people."""

    def __init__(self, status: int) -> None:
        self._status = status

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        return web.Response(status=self._status, body=_PAGE, content_type="text/html")

    def interrupt(self, _asked: Asked) -> bytes:
        return b""


class WatchRefused(_ButTheLease):
    """Watches are refused with this status; all else works."""

    def __init__(self, status: int, reason: str) -> None:
        self._status, self._reason = status, reason

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        if exchange.asked.is_watch:
            return exchange.refuse(self._status, self._reason, "a fault of the test")
        return await exchange.pass_on()

    def interrupt(self, _asked: Asked) -> bytes:
        return b""


class WatchTells(_ButTheLease):
    """Each watch, open or new, tells this and ends; all else works."""

    def __init__(self, last: bytes) -> None:
        self._last = last

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        if not exchange.asked.is_watch:
            return await exchange.pass_on()
        stream = await exchange.open()
        await stream.write(self._last)
        return stream

    def interrupt(self, _asked: Asked) -> bytes:
        return self._last


class CutShort(WatchTells):
    """Every answer ends in the middle, as if that were its end."""

    def __init__(self) -> None:
        super().__init__(_HALF_AN_EVENT)

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        if exchange.asked.is_watch or exchange.asked.method != "GET":
            return await super().fail(exchange)
        whole = await exchange.upstream()
        assert isinstance(whole.body, bytes)
        return web.Response(
            status=whole.status, body=whole.body[: len(whole.body) // 2], content_type="application/json"
        )


class Frozen(_ButTheLease):
    """Reads are answered from what was there when this was made; writes go to what is there now.

    As by an API server whose store was restored, or that is cut off from the others. With `only`, that
    happens to the resources whose API version starts so.
    """

    def __init__(self, api: Api, *, only: str = "/api") -> None:
        read = [known for known in _READ if known[0].startswith(only)]
        self._lists = {
            plural: eventually("it is listed", partial(_listed, api, f"{root}/{plural}"))
            for root, plural, _ in read
        }
        for _, plural, kind in read:
            for item in self._lists[plural]["items"]:
                item |= {"kind": kind, "apiVersion": self._lists[plural]["apiVersion"]}

    async def fail(self, exchange: Exchange) -> web.StreamResponse:
        asked = exchange.asked
        found = _PATH.fullmatch(asked.path)
        known = self._lists.get(found["plural"]) if found else None
        if asked.method != "GET" or found is None or known is None:
            return await exchange.pass_on()
        if asked.is_watch:
            return await self._watch(exchange, known)
        items = [i for i in known["items"] if found["namespace"] in {None, i["metadata"].get("namespace")}]
        if found["name"]:
            one = [i for i in items if i["metadata"]["name"] == found["name"]]
            return web.json_response(one[0]) if one else exchange.refuse(404, "NotFound", asked.path)
        labels = asked.query.get("labelSelector", "")
        return web.json_response({**known, "items": list(_labelled(items, labels))})

    async def _watch(self, exchange: Exchange, known: Object) -> web.StreamResponse:
        """Nothing ever happens; and what has happened elsewhere since is not known here."""
        stream = await exchange.open()
        if exchange.asked.query.get("resourceVersion") == known["metadata"]["resourceVersion"]:
            await asyncio.sleep(float(exchange.asked.query["timeoutSeconds"]))
        else:
            await stream.write(error_line(410, "Expired", "too large resource version"))
        return stream

    def interrupt(self, _asked: Asked) -> bytes:
        return b""


FAULTS: Final[Mapping[str, Callable[[], Fault]]] = {
    "connections break": Breaking,
    "every request takes 20 s": lambda: Slow(20),
    "nothing is answered": HalfOpen,
    "watches are refused as expired": lambda: WatchRefused(410, "Expired"),
    "watches tell that they expired": lambda: WatchTells(error_line(410, "Expired", "too old")),
    "too many requests": lambda: Refusing(429, "TooManyRequests", **{"Retry-After": _DATE}),
    "internal errors": lambda: Refusing(500, "InternalError"),
    "not authorised": lambda: Refusing(401, "Unauthorized"),
    "watches tell of an internal error": lambda: WatchTells(error_line(500, "InternalError", "etcd")),
    "watches end at once": lambda: WatchTells(b""),
    "answers are cut short": CutShort,
    "a page for people, 404": lambda: NotOurs(404),
    "a page for people, 503": lambda: NotOurs(503),
}
"""By what is wrong."""


def _listed(api: Api, path: str) -> Object | None:
    try:
        return api.get(path)
    except Refused as refused:
        if refused.status == 429:  # the API server has just heard of this kind
            return None
        raise


def _labelled(items: Iterable[Object], selector: str) -> Iterable[Object]:
    wanted = [term.partition("=") for term in selector.split(",") if term]
    for item in items:
        labels = item["metadata"].get("labels", {})
        if all(labels.get(key) == value if sign else key in labels for key, sign, value in wanted):
            yield item
