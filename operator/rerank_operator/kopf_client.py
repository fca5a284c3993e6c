"""The HTTP client that kopf gets. It asks for metadata alone, and shows kopf nothing that would end it.

Handlers need names and labels and nothing else, and kopf would parse, copy and keep whole objects by the
thousand. It would wait for the beginning of a watch's answer as long as for its end. And it ends, as a whole,
where one of its watches meets an error other than 410, half a line, or a page of something on the way. Each
of these becomes what kopf has an answer to: a server that is out of order, which it asks again after a while,
or a list or watch that expired, for which it lists everything anew. It would do the latter at once and for
ever, so that comes after a pause.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from itertools import chain, repeat
from random import uniform
from typing import Any, Final

import aiohttp
import structlog

_ACCEPT: Final = "application/json;as={};g=meta.k8s.io;v=v1,application/json"
_WATCHED: Final = "PartialObjectMetadata"
_LISTED: Final = "PartialObjectMetadataList"
_EVENT: Final = b'{"type":"'
_ERROR: Final = b'{"type":"ERROR"'
_EXPIRED: Final = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'
_GONE: Final = 410
# At 401 kopf logs in again, at 403 and all from 500 on it asks again later. All else may end it, 429 too,
# where Retry-After is a date.
_UNDERSTOOD: Final = frozenset({200, 401, 403})
_OUT_OF_ORDER: Final = 503
# The API server ends no watch so soon.
_AT_ONCE_SECONDS: Final = 1.0

REQUEST_SECONDS: Final = 15.0
"""The deadline of a request, and of a watch until its answer begins, which does not wait for events."""

_log = structlog.get_logger()


class Backoffs:
    """Seconds to wait between attempts to reach the API server: growing, jittered, without end."""

    def __iter__(self) -> Iterator[float]:
        for seconds in chain((1, 2, 3, 5), repeat(8)):
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
        response_class=Response,
        trace_configs=[trace],
    )


class _Course:
    """How it goes with the lists, or the watches, of one path. After a failure kopf would ask again at once.

    Pauses grow from failure to failure, and are short again once something went well.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pauses = iter(Backoffs())

    def well(self) -> None:
        self._pauses = iter(Backoffs())

    async def failed(self, why: str) -> None:
        seconds = next(self._pauses)
        _log.warning("asked in vain, and will ask again", path=self._path, why=why, seconds=round(seconds, 1))
        await asyncio.sleep(seconds)


class _Interpreter:
    """Stands between kopf and the API server.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
    """

    def __init__(self) -> None:
        self._courses: dict[tuple[str, str], _Course] = {}

    async def __call__(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        query, path = request.url.query, request.url.path
        kind = _WATCHED if "watch" in query else _LISTED if "limit" in query else ""
        if not kind:  # kopf looks once for what is served
            return await send(request)
        request.headers["Accept"] = _ACCEPT.format(kind)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await send(request)
        except aiohttp.ClientResponseError as error:  # not even HTTP: kopf knows broken connections only
            raise aiohttp.ClientConnectionError(str(error)) from error
        assert isinstance(response, Response)  # noqa: S101  # narrows
        response.interpret(self._courses.setdefault((kind, path), _Course(path)), watch=kind == _WATCHED)
        return response


class Response(aiohttp.ClientResponse):
    """An answer that kopf can do with.

    Attributes:
        unsound: it was no answer to what was asked, and kopf was shown an end that it knows.
    """

    unsound = False
    _course: _Course | None = None

    def interpret(self, course: _Course, *, watch: bool) -> None:
        """It answers a list or a watch."""
        self._course = course
        if self.status == _GONE:
            self.status, self.unsound = 200, True
        elif self.status < 500 and self.status not in _UNDERSTOOD:
            self.status = _OUT_OF_ORDER
        if watch:
            events = _Events(self.content, self, course)
            self.content = events  # type: ignore[assignment]  # an adapter of it

    async def json(self, **arguments: Any) -> Any:
        """The object.

        Raises:
            aiohttp.ClientPayloadError: it is of a list that expired, or is none: kopf begins anew.
            aiohttp.ClientConnectionError: a refusal cannot be read: kopf reads its text.
        """
        if self._course is None:
            return await super().json(**arguments)
        if self.status != 200:
            try:
                return await super().json(**arguments)
            except (ValueError, aiohttp.ClientPayloadError) as error:
                raise aiohttp.ClientConnectionError("a refusal that is not JSON") from error
        found = None
        with suppress(ValueError, aiohttp.ContentTypeError, aiohttp.ClientPayloadError):
            found = await super().json(**arguments)
        if self.unsound or not isinstance(found, dict):
            self.unsound = True
            await self._course.failed("no list, or one that has expired")
            raise aiohttp.ClientPayloadError("no list")
        self._course.well()
        if found.get("items", ()) is None:  # the API server's empty list of metadata; kopf expects no null
            found["items"] = []
        return found

    async def text(self, encoding: str | None = None, errors: str = "replace") -> str:
        """The body as text, whatever it is: a page may be in any encoding."""
        return await super().text(encoding, errors)


class _Events:
    """The body of a watch as kopf reads it: whole events, and at most one error, 410."""

    def __init__(self, body: aiohttp.StreamReader, response: Response, course: _Course) -> None:
        self._body = body
        self._response = response
        self._course = course

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Lines; at most `size` bytes are read at once."""
        loop = asyncio.get_running_loop()
        began, told = loop.time(), False
        try:
            async for line in self._lines(size):
                if not line.startswith(_EVENT) or line.startswith(_ERROR) or not line.endswith(b"\n"):
                    self._response.unsound = True
                if self._response.unsound:
                    break
                told = True
                self._course.well()
                yield line
        except aiohttp.ClientError:
            if not told:
                await self._course.failed("the watch broke off before it told anything")
            raise
        if self._response.unsound:
            await self._course.failed("no watch, or one that has expired")
            yield _EXPIRED
        elif told or loop.time() - began >= _AT_ONCE_SECONDS:
            self._course.well()  # a quiet watch too, that the API server ended when its time was up
        else:
            await self._course.failed("the watch ended at once")

    async def _lines(self, size: int) -> AsyncIterator[bytes]:
        """Each with its end, but for the last one where it was cut off."""
        rest = b""
        async for data in self._body.iter_chunked(size):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest
