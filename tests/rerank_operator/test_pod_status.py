"""Asking pods over real sockets: a short deadline, a size limit, and only what is well formed."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from rerank_api import names
from rerank_operator import pod_status
from rerank_operator.observe import Observed, Reports, commit_of
from rerank_operator.pod_status import Poller, Report, parse
from rerank_operator.pods import Container
from tests.rerank_operator.samples import COMMIT, DONE, RUNNING, model, pod, report, serving, source

ADDRESS = "127.0.0.1"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> AsyncIterator[Callable[[Handler], Any]]:
    """Serves `GET /status` with a handler, on a port of the test's own."""
    monkeypatch.setattr(names, "STATUS_PORT", unused_tcp_port)
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> None:
        app = web.Application()
        app.router.add_get("/status", handler)
        runners.append(web.AppRunner(app, shutdown_timeout=0.01))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], ADDRESS, unused_tcp_port).start()

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    poller = Poller()
    yield poller
    await poller.close()


async def test_a_report_is_read(serve: Any, poller: Poller) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(
            {"phase": "Downloading", "download": {"bytes": 1, "totalBytes": 2}, "inFlight": 0}
        )

    await serve(answer)
    found = await poller.ask(ADDRESS)
    assert found == report("Downloading", download={"bytes": 1, "totalBytes": 2})


async def test_a_slow_pod_costs_the_deadline_and_no_more(serve: Any, poller: Poller) -> None:

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    await serve(answer)
    assert await asyncio.wait_for(poller.ask(ADDRESS), pod_status.DEADLINE_SECONDS + 1) is None


async def test_an_endless_answer_is_cut_off(serve: Any, poller: Poller) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65536)
        except ConnectionResetError:
            return response

    await serve(answer)
    assert await asyncio.wait_for(poller.ask(ADDRESS), 3) is None


async def test_no_redirect_is_followed(serve: Any, poller: Poller) -> None:
    async def answer(request: web.Request) -> web.Response:
        if "again" in request.query:
            return web.json_response({"phase": "Ready"})
        return web.Response(status=302, headers={"Location": "/status?again=1"})

    await serve(answer)
    assert await poller.ask(ADDRESS) is None


@pytest.mark.parametrize(("padding", "read"), [(0, True), (pod_status.SIZE_LIMIT_BYTES, False)])
async def test_a_long_answer_is_not_read(serve: Any, poller: Poller, padding: int, read: bool) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b'{"phase": "Ready"}' + b" " * padding)

    await serve(answer)
    assert (await poller.ask(ADDRESS) is not None) is read


async def test_nobody_there(serve: Any, poller: Poller) -> None:
    assert await poller.ask(ADDRESS) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"phase": "Owned"}',
        b'{"phase": "Failed", "reason": "two words"}',
        b'{"phase": "Downloading", "download": {"bytes": -1, "totalBytes": 2}}',
        b'{"phase": "Ready", "source": {"repo": "o/n", "revision": "main"}}',
        json.dumps({"phase": "Failed", "message": "x" * 5000}).encode(),
        json.dumps({"phase": "Ready", "model": {"family": "x" * 65}}).encode(),
        json.dumps(
            {"phase": "Ready", "model": {"scoring": {"method": "m", "range": "r", "templateSha256": "abc"}}}
        ).encode(),
        b'{"phase": "Ready", "verification": {"verified": true, "cases": [{"query": "q", "relevant": NaN}]}}',
        b'{"phase": "Ready", "verification": {"verified": true, "mode": "Perhaps"}}',
        b"[" * 60_000,
    ],
)
def test_what_is_not_well_formed_is_no_report(data: bytes) -> None:
    assert parse(data) is None


def test_fields_of_a_newer_runtime_are_ignored() -> None:
    assert parse(b'{"phase": "Ready", "new": 1, "model": {"new": 2}}') == report(model={})


class Pods:
    """Stands for the network: what each address answers now."""

    def __init__(self, **answers: Report | None) -> None:
        self.answers: dict[str, Report | None] = answers
        self.asked: list[str] = []

    async def ask(self, ip: str) -> Report | None:
        self.asked.append(ip)
        return self.answers.get(ip)


async def test_a_pod_that_does_not_answer_has_not_forgotten() -> None:
    network = Pods(a=report("Starting"))
    reports = Reports(asker=network)
    subject = pod(ip="a", fetch=DONE, serve=RUNNING)
    assert (await reports.of("n", "m", [subject]))[0].report == report("Starting")
    network.answers = {}
    assert (await reports.of("n", "m", [subject]))[0].report == report("Starting")


async def test_a_container_that_was_started_again_begins_anew() -> None:
    network = Pods(a=report("Verifying"))
    reports = Reports(asker=network)
    await reports.of("n", "m", [pod(ip="a", fetch=DONE, serve=RUNNING)])
    network.answers = {}
    again = pod(ip="a", fetch=DONE, serve=Container(state="running", restarts=1))
    assert (await reports.of("n", "m", [again]))[0].report is None


async def test_a_ready_pod_is_asked_once() -> None:
    network = Pods(a=report())
    reports = Reports(asker=network)
    for _ in range(3):
        assert (await reports.of("n", "m", [serving(ip="a")]))[0].report == report()
    assert network.asked == ["a"]


async def test_pods_without_a_running_container_are_not_asked() -> None:
    network = Pods()
    reports = Reports(asker=network)
    await reports.of(
        "n", "m", [pod(ip="a", fetch=Container()), pod("p2", ip=None), pod("p3", ip="c", deleting=True)]
    )
    assert network.asked == []


async def test_reports_of_pods_that_are_gone_are_dropped() -> None:
    reports = Reports(asker=Pods(a=report()))
    await reports.of("n", "m", [serving(ip="a")])
    await reports.of("n", "m", [])
    assert reports._known == {}


def pinned(data: dict[str, str] | None, *, owner: str = "u-1") -> Any:
    return {"metadata": {"ownerReferences": [{"uid": owner}]}, "data": data}


SOURCE = source(model())
OTHER = "d" * 40


@pytest.mark.parametrize(
    ("config_map", "reporting", "commit"),
    [
        (None, None, None),
        (None, COMMIT, COMMIT),
        (pinned({SOURCE.key: COMMIT}), OTHER, COMMIT),
        (pinned({SOURCE.key: "main"}), OTHER, OTHER),
        (pinned({"another": COMMIT}), None, None),
        (pinned(None), OTHER, OTHER),
        (pinned({SOURCE.key: COMMIT}, owner="another"), None, None),
    ],
)
def test_the_commit_is_that_of_the_first_pod(
    config_map: Any, reporting: str | None, commit: str | None
) -> None:
    pods = []
    if reporting:
        told = report(source={"repo": "org/name", "revision": reporting})
        pods = [replace(serving(), source=SOURCE.key, report=told)]
    observed = Observed(children={"ConfigMap": config_map}, pods=tuple(pods))
    assert commit_of(SOURCE, observed, owner_uid="u-1") == commit


def test_a_pod_of_another_source_pins_nothing() -> None:
    told = report(source={"repo": "org/name", "revision": COMMIT})
    stray = [replace(serving(), source="another", report=told)]
    wrong = report(source={"repo": "org/other", "revision": COMMIT})
    stray.append(replace(serving(), source=SOURCE.key, report=wrong))
    observed = Observed(children={}, pods=tuple(stray))
    assert commit_of(SOURCE, observed, owner_uid="u-1") is None
