"""What kopf gets to see of the answers of an API server, and of what stands between."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from rerank_operator import kopf_client

EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'
ADDED = b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n'
TOO_OLD = b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}\n'
INTERNAL = b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd"}}\n'
PAGE = b"<html>\n<body>no such site</body>\n</html>\n"
WATCH, LIST = "?watch=true", "?limit=200"


class Pauses:
    """Of no length; how many of each attempt's there were."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def __iter__(self) -> Iterator[float]:
        for number in count(1):
            self.taken.append(number)
            yield 0.0


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    found = Pauses()
    monkeypatch.setattr(kopf_client, "Backoffs", lambda: found)
    return found


class Server:
    """Gives the answers that it was told to, one after another."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self._answers = iter(answers)
        self.accepted: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.accepted.append(request.headers["Accept"].split(",")[0])
        status, body = next(self._answers)
        kind = "text/html" if body == PAGE else "application/json"
        headers = {"Location": "/login"} if status == 302 else {}
        return web.Response(status=status, body=body, content_type=kind, headers=headers)


class Mute(Server):
    """Takes requests and says nothing."""

    async def answer(self, _: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        raise AssertionError("somebody waited for it")


@contextlib.asynccontextmanager
async def asking(server: Server) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """The client, and the URL of a collection."""
    app = web.Application()
    app.router.add_get("/pods", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = kopf_client.session(
        headers={}, context=ssl.create_default_context(), trace=aiohttp.TraceConfig()
    )
    try:
        yield client, f"http://127.0.0.1:{runner.addresses[0][1]}/pods"
    finally:
        await client.close()
        await runner.cleanup()


async def seen(server: Server, *queries: str) -> list[Any]:
    """Of each answer: what a list says or the lines of a watch, or the status, or the error."""
    async with asking(server) as (client, url):
        return [await _seen(client, url + query) for query in queries]


async def _seen(client: aiohttp.ClientSession, url: str) -> Any:
    async with client.get(url) as response:
        if response.status != 200:
            return response.status
        if WATCH in url:
            return b"".join([data async for data in response.content.iter_chunked(16)])
        try:
            return await response.json()
        except aiohttp.ClientPayloadError as error:
            return type(error)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (ADDED + ADDED, ADDED + ADDED),
        (ADDED + TOO_OLD, ADDED + EXPIRED),
        (ADDED + INTERNAL, ADDED + EXPIRED),
        (ADDED + ADDED[:-20], ADDED + EXPIRED),
        (PAGE, EXPIRED),
        (ADDED + b"\xff\n", ADDED + EXPIRED),
    ],
)
async def test_of_a_watch_only_whole_events_and_410_are_shown(
    pauses: Pauses, body: bytes, shown: bytes
) -> None:
    assert await seen(Server((200, body)), WATCH) == [shown]
    assert len(pauses.taken) == (EXPIRED in shown)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"items":[{"metadata":{}}]}', {"items": [{"metadata": {}}]}),
        (b'{"items":null}', {"items": []}),
        (b'{"items":[{"meta', aiohttp.ClientPayloadError),
        (b"[]", aiohttp.ClientPayloadError),
        (b"\xff", aiohttp.ClientPayloadError),
        (PAGE, aiohttp.ClientPayloadError),
    ],
)
async def test_a_list_that_is_none_is_one_that_broke_off(pauses: Pauses, body: bytes, shown: Any) -> None:
    assert await seen(Server((200, body)), LIST) == [shown]
    assert len(pauses.taken) == (shown is aiohttp.ClientPayloadError)


@pytest.mark.parametrize(
    ("status", "of_a_watch", "of_a_list"),
    [
        (401, 401, 401),
        (403, 403, 403),
        (404, 503, 503),
        (409, 503, 503),
        (410, EXPIRED, aiohttp.ClientPayloadError),
        (422, 503, 503),
        (429, 503, 503),
        (500, 500, 500),
        (204, 503, 503),
        (302, 503, 503),
    ],
)
async def test_refusals_become_those_that_kopf_lives_with(
    pauses: Pauses, status: int, of_a_watch: Any, of_a_list: Any
) -> None:
    answer = (status, b'{"kind":"Status"}')
    assert await seen(Server(answer, answer), WATCH, LIST) == [of_a_watch, of_a_list]


@pytest.mark.parametrize("body", [b"<html>\xff", b'{"kind":"Sta'])
async def test_a_refusal_that_cannot_be_read_is_read_as_text(pauses: Pauses, body: bytes) -> None:
    """As kopf does it: https://github.com/nolar/kopf/blob/main/kopf/_cogs/clients/errors.py."""
    async with asking(Server((500, body))) as (client, url), client.get(url + LIST) as response:
        with pytest.raises((aiohttp.ClientConnectionError, aiohttp.ContentTypeError)):
            await response.json()
        assert await response.text()


async def test_a_watch_that_ends_at_once_is_not_begun_at_once(pauses: Pauses) -> None:
    assert await seen(Server((200, b""), (200, ADDED)), WATCH, WATCH) == [b"", ADDED]
    assert pauses.taken == [1]


async def test_a_watch_that_is_not_answered_is_given_up_before_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kopf_client, "REQUEST_SECONDS", 0.05)
    async with asking(Mute()) as (client, url), asyncio.timeout(30):
        with pytest.raises(TimeoutError):
            await client.get(url + WATCH)


async def test_what_is_served_is_told_as_it_is(pauses: Pauses) -> None:
    assert await seen(Server((404, b"{}"), (200, b'{"resources":[]}')), "", "") == [404, {"resources": []}]


async def test_pauses_grow_until_all_is_well(pauses: Pauses) -> None:
    server = Server(*[(200, INTERNAL)] * 2, (200, b'{"items":[]}'), (200, INTERNAL), (200, ADDED + INTERNAL))
    await seen(server, WATCH, WATCH, LIST, WATCH, WATCH)
    assert pauses.taken == [1, 2, 3, 1]


async def test_a_quiet_watch_went_well(pauses: Pauses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf_client, "_AT_ONCE_SECONDS", 0.0)
    await seen(Server((200, INTERNAL), (200, b""), (200, INTERNAL)), WATCH, WATCH, WATCH)
    assert pauses.taken == [1, 1]


async def test_metadata_is_all_that_is_asked_for(pauses: Pauses) -> None:
    server = Server((200, b'{"items":[]}'), (200, b""))
    await seen(server, LIST, WATCH)
    metadata = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
    assert server.accepted == [metadata.format("List"), metadata.format("")]
