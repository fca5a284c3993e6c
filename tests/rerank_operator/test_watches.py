"""Dead watches: kopf itself against a server whose watches of one kind fall silent, each in its own way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml
from aiohttp import ClientSession, web

from rerank_operator import handlers
from rerank_operator.catalog import Users
from rerank_operator.echoes import Version
from rerank_operator.handlers import Key
from rerank_operator.listed import Listed
from rerank_operator.login import login
from rerank_operator.queue import KeyedQueue
from rerank_operator.watches import DEAD_SECONDS, Watches
from tests.rerank_gateway.harness import until

KINDS = {
    "/api/v1": {"services": "Service", "pods": "Pod", "namespaces": "Namespace"},
    "/apis/apps/v1": {"deployments": "Deployment"},
    "/apis/rerank.dev/v1alpha1": {
        "modeldeployments": "ModelDeployment",
        "apikeys": "APIKey",
        "catalogmodels": "CatalogModel",
    },
}
CLUSTER_WIDE = {"modeldeployments", "apikeys", "catalogmodels", "deployments", "services", "pods"}
NAMESPACED = {f"{n}/{kind}" for n in ("a", "b") for kind in CLUSTER_WIDE - {"catalogmodels"}}
# By the fault of a watch, the last that it tells.
TOLD = {
    "talks": b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"2"}}}\n',
    "error": b'{"type":"ERROR","object":{"kind":"Status","code":500}}\n',
    "half": b'{"type":"ADDED","obj',
    "news": b'{"type":"MODIFIED","object":{"metadata":'
    b'{"namespace":"a","name":"k","uid":"u","resourceVersion":"3"}}}\n',
}
WAIT_SECONDS = 60


class Clock:
    """A clock that only moves when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Heard(Listed):
    """What of the resources is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Key, Version]] = []

    def told(self, key: Key, version: Version) -> None:
        self.events.append((key, version))


@dataclass
class ApiServer:
    """Empty lists, and watches that end soon without an event, but for what `faults` says of a path."""

    faults: dict[str, str] = field(default_factory=dict)
    faulty: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        found = self._discovered(request.path)
        if found is not None:
            return web.json_response(found)
        fault = self.faults.get(request.path, "")
        self.faulty += bool(fault)
        if fault == "refused":
            return web.json_response({"kind": "Status", "code": 403, "message": "no"}, status=403)
        if fault in {"page", "nonsense"}:
            status = 404 if fault == "page" else 200
            return web.Response(status=status, text="<html>", content_type="text/html")
        if fault == "unanswered":
            await self.over.wait()
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": None})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(TOLD.get(fault, b""))
        if fault in {"talks", "silent"}:
            await self.over.wait()
        await asyncio.sleep(0.02)
        if fault == "cut" and request.transport is not None:
            request.transport.abort()
        return response

    def _discovered(self, path: str) -> Any:
        if path == "/base/api":
            return {"versions": ["v1"]}
        if path == "/base/apis":
            groups = [p.split("/")[2:] for p in KINDS if p != "/api/v1"]
            return {
                "groups": [
                    {
                        "name": name,
                        "versions": [{"version": version}],
                        "preferredVersion": {"version": version},
                    }
                    for name, version in groups
                ]
            }
        kinds = KINDS.get(path.removeprefix("/base"))
        return kinds and {
            "resources": [
                {
                    "name": plural,
                    "kind": kind,
                    "singularName": "",
                    "namespaced": plural not in {"namespaces", "catalogmodels"},
                    "verbs": ["get", "list", "watch"],
                }
                for plural, kind in kinds.items()
            ]
        }


def kubeconfig(url: str, token: str) -> str:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    return yaml.safe_dump(config)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[ApiServer, str]]:
    """An API server of the test's own, with its URL."""
    server = ApiServer()
    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield server, f"http://127.0.0.1:{runner.addresses[0][1]}/base"
    finally:
        server.over.set()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def watching(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    namespaces: tuple[str, ...],
    clock: Clock,
    listed: Listed | None = None,
) -> AsyncIterator[tuple[ApiServer, Watches]]:
    """Kopf, with our handlers and settings but for the times, on an API server of the test's own."""
    monkeypatch.setattr("rerank_operator.kopf_client.Backoffs", lambda: repeat(0.05))
    async with serving() as (server, url):
        (folder / "kubeconfig").write_text(kubeconfig(url, "t"))
        monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
        watches = Watches(handlers.watched(namespaces, catalog_models=not namespaces), clock=clock)
        settings = handlers.settings()
        settings.watching.client_timeout = 0.3
        settings.networking.request_timeout = 0.3
        settings.networking.error_backoffs = [0.05] * 10_000
        stop = asyncio.Event()
        queue: KeyedQueue[Key] = KeyedQueue()
        operator = asyncio.create_task(
            kopf.operator(
                registry=handlers.registry(
                    queue,
                    listed or Heard(),
                    Users(),
                    login(watches, in_cluster=False),
                    catalog_models=not namespaces,
                ),
                settings=settings,
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=stop,
            )
        )
        try:
            yield server, watches
            assert not operator.done()
        finally:
            server.over.set()
            stop.set()
            await operator


@pytest.mark.parametrize("kind", ["ModelDeployment", "APIKey"])
async def test_what_was_listed_hears_of_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    heard = Heard()
    async with watching(tmp_path, monkeypatch, (), Clock(), heard) as (server, _):
        server.faults[f"/base/apis/rerank.dev/v1alpha1/{kind.lower()}s"] = "news"
        await until(lambda: ((kind, "a", "k"), ("u", "3")) in heard.events, seconds=WAIT_SECONDS)


@pytest.mark.parametrize(("namespaces", "names"), [((), CLUSTER_WIDE), (("a", "b"), NAMESPACED)])
async def test_every_watch_shows_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespaces: tuple[str, ...], names: set[str]
) -> None:
    clock = Clock()
    async with watching(tmp_path, monkeypatch, namespaces, clock) as (_, watches):
        assert watches.ages().keys() == names
        for _ in range(3):  # it does so again and again: at first for its list, then for watches that end
            clock.now += DEAD_SECONDS + 1
            assert watches.dead(), "until it is heard again"
            await until(lambda: not any(watches.ages().values()), seconds=WAIT_SECONDS)
            assert watches.dead() == []


@pytest.mark.parametrize(
    ("fault", "dead", "current"),
    [
        ("unanswered", True, False),  # half-open: the request arrives, or not, and nothing comes back
        ("silent", True, False),  # accepted, and then nothing, not even its end
        ("refused", False, False),  # no other process would fare better
        ("page", False, False),
        ("nonsense", False, False),
        ("cut", False, True),  # kopf notices and goes on from where it was
        ("talks", False, True),  # bookmarks or events come
    ],
)
async def test_one_watch_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, dead: bool, current: bool
) -> None:
    clock = Clock()
    path = "/apis/rerank.dev/v1alpha1/apikeys"
    async with watching(tmp_path, monkeypatch, (), clock) as (server, watches):
        clock.now += 1
        await until(lambda: not any(watches.ages().values()), seconds=WAIT_SECONDS)
        server.faults[f"/base{path}"] = fault
        await until(
            lambda: server.faulty > 0, seconds=WAIT_SECONDS
        )  # and so what was under way before has ended, well
        clock.now += DEAD_SECONDS + 1
        others = CLUSTER_WIDE - {"apikeys"}
        await until(lambda: server.faulty > 3, seconds=WAIT_SECONDS)
        await until(lambda: not any(watches.ages()[name] for name in others), seconds=WAIT_SECONDS)
        if not dead:
            await until(lambda: watches.dead() == [], seconds=WAIT_SECONDS)
        assert watches.dead() == (["apikeys"] if dead else [])
        if current:
            await until(lambda: watches.ages()["apikeys"] < DEAD_SECONDS, seconds=WAIT_SECONDS)
        assert (watches.ages()["apikeys"] < DEAD_SECONDS) == current


async def test_a_kind_that_kopf_did_not_find_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(KINDS["/apis/apps/v1"], "deployments")
    clock = Clock()
    async with watching(tmp_path, monkeypatch, (), clock) as (_, watches):
        clock.now += DEAD_SECONDS + 1
        await until(lambda: watches.dead() == ["deployments"], seconds=WAIT_SECONDS)


@pytest.mark.parametrize("fault", ["page", "nonsense", "error", "half"])
async def test_what_kopf_would_end_at_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    clock = Clock()
    async with watching(tmp_path, monkeypatch, (), clock) as (server, watches):
        server.faults["/base/api/v1/pods"] = fault
        await until(lambda: server.faulty > 3, seconds=WAIT_SECONDS)
        server.faults.clear()
        clock.now += DEAD_SECONDS + 1
        await until(lambda: not any(watches.ages().values()), seconds=WAIT_SECONDS)


async def test_credentials_that_were_refused_are_tried_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kopf asks when the API server refused the last ones, and ends when it gets none."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("rerank_operator.login.REFUSED_SECONDS", 0.2)
    log_in = login(Watches({}), in_cluster=False)
    given, waited = [], []
    for token in ("old", "old", "new"):
        (tmp_path / "kubeconfig").write_text(kubeconfig("http://127.0.0.1:1", token))
        asked = asyncio.get_running_loop().time()
        session = await log_in(settings=handlers.settings())
        waited.append(asyncio.get_running_loop().time() - asked >= 0.2)
        assert session is not None
        given.append(session.aiohttp_session.headers["Authorization"])
        await session.aiohttp_session.close()
    assert given == ["Bearer old", "Bearer old", "Bearer new"]
    assert waited[1]


async def test_what_a_watch_told_before_it_fell_silent_is_no_news() -> None:
    clock = Clock()
    path = "/api/v1/pods"
    watches = Watches({path: "pods"}, clock=clock)
    async with serving() as (server, url), ClientSession(trace_configs=[watches.trace(url)]) as client:
        server.faults[f"/base{path}"] = "talks"
        async with client.get(f"{url}{path}?watch=true") as response:
            await response.content.readline()
            clock.now += DEAD_SECONDS + 1
        server.over.set()
        async with client.get(f"{url}{path}?watch=true"):
            assert watches.dead() == ["pods"]
