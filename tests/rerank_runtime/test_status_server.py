"""The status port: what it answers, and to whom."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.status import Phase, Status
from rerank_runtime.status_server import create_app


@pytest.mark.parametrize(
    ("phase", "ready"),
    [
        (Phase.DOWNLOADING, 503),
        (Phase.STARTING, 503),
        (Phase.VERIFYING, 503),
        (Phase.READY, 200),
        (Phase.DRAINING, 503),
        (Phase.FAILED, 503),
    ],
)
async def test_only_a_verified_pod_is_ready(phase: Phase, ready: int) -> None:
    async with TestClient(TestServer(create_app(Status(phase)))) as client:
        assert (await client.get("/readyz")).status == ready
        assert (await client.get("/livez")).status == 200


async def test_a_dead_engine_ends_liveness() -> None:
    status = Status(Phase.READY, alive=False, message="the engine hangs")
    async with TestClient(TestServer(create_app(status))) as client:
        response = await client.get("/livez")
        assert (response.status, await response.text()) == (503, "the engine hangs\n")


async def test_the_status_is_fresh() -> None:
    status = Status(Phase.READY)

    async def refresh() -> None:
        status.in_flight += 1

    async with TestClient(TestServer(create_app(status, refresh=refresh))) as client:
        for expected in (1, 2):
            assert (await (await client.get("/status")).json())["inFlight"] == expected


async def test_a_failure_is_shown() -> None:
    status = Status(Phase.DOWNLOADING)
    status.fail(Failure(Reason.REPOSITORY_GATED, "set a token"))
    async with TestClient(TestServer(create_app(status))) as client:
        body = await (await client.get("/status")).json()
        assert body == {
            "phase": "Failed",
            "reason": "RepositoryGated",
            "message": "set a token",
            "inFlight": 0,
        }


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [("127.0.0.1", True), ("::1", True), ("10.244.0.7", False), ("fd00::7", False), ("192.168.1.4", False)],
)
async def test_only_the_pod_itself_may_drain(peer: str, *, allowed: bool) -> None:
    drained: list[int] = []

    async def drain() -> int:
        drained.append(1)
        return 0

    app = create_app(Status(Phase.READY), drain=drain)
    transport = Mock()
    transport.get_extra_info.side_effect = lambda name, default=None: (
        (peer, 1) if name == "peername" else default
    )
    request = make_mocked_request("POST", "/drain", app=app, transport=transport)
    handler = (await app.router.resolve(request)).handler
    if allowed:
        assert (await handler(request)).status == 200
    else:
        with pytest.raises(web.HTTPForbidden):
            await handler(request)
    assert len(drained) == allowed


async def test_a_container_without_an_engine_has_nothing_to_drain() -> None:
    async with TestClient(TestServer(create_app(Status(Phase.DOWNLOADING)))) as client:
        assert (await client.post("/drain")).status == 404
        assert (await client.get("/drain")).status == 405
