"""The HTTP client that kopf gets. It asks for metadata alone, and shows kopf nothing that would end it.

Handlers need names and labels and nothing else, and kopf would parse, copy and keep whole objects by the
thousand. And kopf ends, as a whole, where one of its watches meets an error other than 410, half a line, or
a page of something on the way. Each of these becomes what kopf has an answer to: a server that is out of
order, which it asks again after a while, or a list or watch that expired, for which it lists everything anew.
It would do the latter at once and for ever, so that comes after a pause.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import chain, repeat
from random import uniform
from typing import Any, Final

import aiohttp

_ACCEPT: Final = "application/json;as={};g=meta.k8s.io;v=v1,application/json"
_EVENT: Final = b'{"type":"'
_ERROR: Final = b'{"type":"ERROR"'
_EXPIRED: Final = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'
_GONE: Final = 410
# With these kopf logs in again, or asks again later. At all other refusals it ends.
_UNDERSTOOD: Final = frozenset({401, 403, 429})
_OUT_OF_ORDER: Final = 503

Asked = tuple[str, str]
"""Whether a watch or a list was asked for, and of what path."""


class Backoffs:
    """Seconds to wait between attempts to reach the API server: growing, jittered, without end."""

    def __iter__(self) -> Iterator[float]:
        for seconds in chain((1, 2, 3, 5, 8), repeat(13)):
            yield seconds * uniform(0.75, 1.25)  # noqa: S311  # spreads retries, guards nothing


def session(
    *, headers: Mapping[str, str], context: ssl.SSLContext, trace: aiohttp.TraceConfig
) -> aiohttp.ClientSession:
    """A session as kopf would make it, but for what the module says. kopf closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        headers=headers,
        trust_env=False,
        middlewares=(_Interpreter(),),
        response_class=_Response,
        trace_configs=[trace],
    )


class _Pauses:
    """Before what expired is asked for anew: longer each time, and short again after it went well."""

    def __init__(self) -> None:
        self._next: dict[Asked, Iterator[float]] = {}

    async def wait(self, asked: Asked) -> None:
        await asyncio.sleep(next(self._next.setdefault(asked, iter(Backoffs()))))

    def forget(self, asked: Asked) -> None:
        self._next.pop(asked, None)


class _Interpreter:
    """Stands between kopf and the API server.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
    """

    def __init__(self) -> None:
        self._pauses = _Pauses()

    async def __call__(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        query = request.url.query
        what = "watch" if "watch" in query else "list" if "limit" in query else ""
        kind = "PartialObjectMetadata" if what == "watch" else "PartialObjectMetadataList"
        request.headers["Accept"] = _ACCEPT.format(kind)
        response = await send(request)
        if what and isinstance(response, _Response):  # else kopf looks for what is served
            response.interpret((what, request.url.path), self._pauses)
        return response


class _Response(aiohttp.ClientResponse):
    """An answer that kopf can do with."""

    _asked: Asked | None = None
    _expired = False

    def interpret(self, asked: Asked, pauses: _Pauses) -> None:
        """It answers a list or a watch."""
        self._asked, self._pauses = asked, pauses
        if self.status == _GONE:
            self.status, self._expired = 200, True
        elif 400 <= self.status < 500 and self.status not in _UNDERSTOOD:
            self.status = _OUT_OF_ORDER
        if asked[0] == "watch":
            events = _Events(self.content, expired=self._expired, asked=asked, pauses=pauses)
            self.content = events  # type: ignore[assignment]  # an adapter of it

    async def json(self, **arguments: Any) -> Any:
        """The object.

        Raises:
            aiohttp.ClientPayloadError: it is of a list that expired, or none at all: kopf begins anew.
        """
        if self._asked is None or self.status != 200:
            return await super().json(**arguments)
        try:
            found = None if self._expired else await super().json(**arguments)
        except (ValueError, aiohttp.ContentTypeError):
            found = None
        if not isinstance(found, dict):
            await self._pauses.wait(self._asked)
            raise aiohttp.ClientPayloadError("not a list")
        self._pauses.forget(self._asked)
        if found.get("items", ()) is None:  # the API server's empty list of metadata; kopf expects no null
            found["items"] = []
        return found


class _Events:
    """The body of a watch as kopf reads it: whole events, and at most one error, 410."""

    def __init__(self, body: aiohttp.StreamReader, *, expired: bool, asked: Asked, pauses: _Pauses) -> None:
        self._body = body
        self._expired = expired
        self._asked = asked
        self._pauses = pauses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Lines; at most `size` bytes are read at once."""
        rest, sound = b"", not self._expired
        if sound:
            async for data in self._body.iter_chunked(size):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    sound = line.startswith(_EVENT) and not line.startswith(_ERROR)
                    if not sound:
                        break
                    self._pauses.forget(self._asked)
                    yield line + b"\n"
                if not sound:
                    break
        if not sound or rest:
            await self._pauses.wait(self._asked)
            yield _EXPIRED
