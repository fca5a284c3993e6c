"""Every way in which a watch goes wrong, and that the state ends right."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from rerank_gateway import reflector
from rerank_gateway.api_server import ApiServer
from rerank_gateway.reflector import RESOURCES, Cluster, Reflector
from rerank_gateway.state import State
from tests.rerank_gateway import fault_proxy, objects
from tests.rerank_gateway.fake_api_server import FakeApiServer, Fault
from tests.rerank_gateway.fault_proxy import FaultProxy
from tests.rerank_gateway.harness import MINTED, until

KEYS = RESOURCES[0]
PEERS_PATH = "/apis/discovery.k8s.io/v1/namespaces/own/endpointslices"


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeApiServer]:
    monkeypatch.setattr(reflector, "_BACKOFF_SECONDS", (0.01, 0.02))
    async with FakeApiServer() as server:
        yield server


@contextlib.asynccontextmanager
async def reflecting(
    api: FakeApiServer, *, relist_seconds: float = 300, url: str | None = None
) -> AsyncIterator[State]:
    """A reflector of APIKeys that is in sync."""
    state = State()
    keys = Reflector(ApiServer(url or api.url), KEYS, None, state, relist_seconds=relist_seconds)
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(keys.run(session))
        try:
            await until(lambda: keys.heard_at is not None and bool(api.watches()))
            yield state
        finally:
            task.cancel()
            await asyncio.wait([task])


def known(state: State) -> bool:
    return bool(state.keys(MINTED.sha256))


def disabled(state: State) -> bool:
    return state.keys(MINTED.sha256)[0].key.disabled


async def test_changes_arrive_through_the_watch(api: FakeApiServer) -> None:
    async with reflecting(api) as state:
        api.put(objects.api_key(MINTED))
        await until(lambda: known(state))
        api.put(objects.api_key(MINTED, disabled=True))
        await until(lambda: disabled(state))
        api.delete(objects.api_key(MINTED))
        await until(lambda: not known(state))
    assert (api.lists(), len(api.watches())) == (1, 1)


async def test_a_list_comes_in_pages(api: FakeApiServer) -> None:
    api.page = 2
    for number in range(5):
        api.put(objects.api_key(MINTED, name=f"key-{number}"))
    async with reflecting(api) as state:
        assert len(state.keys(MINTED.sha256)) == 5


async def test_a_page_that_expired_starts_the_list_again(api: FakeApiServer) -> None:
    api.page = 1
    api.put(objects.api_key(MINTED, name="a"))
    api.put(objects.api_key(MINTED, name="b"))
    api.list_faults.extend(["none", "gone"])
    async with reflecting(api) as state:
        assert len(state.keys(MINTED.sha256)) == 2


HTTP_FAULTS = (
    "gone",
    "gone_in_stream",
    "error_in_stream",
    "too_many",
    "failing",
    "forbidden",
    "silent",
    "end",
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """25 s without a word are 0.1 s."""
    monkeypatch.setattr(reflector, "WATCH_DEADLINE_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", HTTP_FAULTS)
async def test_a_watch_that_stays_broken_loses_nothing_for_longer_than_its_deadline(
    api: FakeApiServer, fault: Fault
) -> None:
    """Not even what no watch would ever tell: for lists still answer."""
    api.put(objects.api_key(MINTED))
    api.watch_faults.extend([fault] * 10_000)
    async with reflecting(api) as state:
        await until(lambda: known(state))
        api.delete(objects.api_key(MINTED), quietly=True)
        await until(lambda: not known(state))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["refuse", "half_open", "reset"])
async def test_a_key_deleted_while_the_network_failed_is_gone_after_it(
    api: FakeApiServer, fault: fault_proxy.Fault
) -> None:
    api.put(objects.api_key(MINTED))
    async with FaultProxy(api.port) as proxy, reflecting(api, url=proxy.url) as state:
        proxy.fail(fault)
        api.delete(objects.api_key(MINTED), quietly=True)
        await asyncio.sleep(0.05)
        proxy.fail("none")
        await until(lambda: not known(state))


async def test_a_slow_network_delays_only(api: FakeApiServer) -> None:
    async with FaultProxy(api.port) as proxy:
        proxy.delay = 0.05
        async with reflecting(api, url=proxy.url) as state:
            api.put(objects.api_key(MINTED))
            await until(lambda: known(state))
    assert (api.lists(), len(api.watches())) == (1, 1)


@pytest.mark.usefixtures("impatient")
async def test_a_watch_that_was_accepted_confirms_nothing(api: FakeApiServer) -> None:
    """A proxy that accepts and says nothing must not keep a key alive."""
    api.watch_faults.extend(["silent"] * 10_000)
    state = State()
    keys = Reflector(ApiServer(api.url), KEYS, None, state)
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(keys.run(session))
        await until(lambda: bool(api.watches()))
        api.list_faults.extend(["failing"] * 10_000)
        confirmed = keys.heard_at
        await until(lambda: api.lists() > 3)
        assert keys.heard_at == confirmed
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("fault", ["gone", "gone_in_stream", "error_in_stream"])
async def test_a_key_deleted_while_the_watch_was_broken_is_gone_after_it(
    api: FakeApiServer, fault: Fault
) -> None:
    api.put(objects.api_key(MINTED))
    api.watch_faults.extend(["end", fault])
    async with reflecting(api) as state:
        assert known(state)
        api.delete(objects.api_key(MINTED), quietly=True)
        await until(lambda: not known(state))
    assert api.lists() >= 2


async def test_a_delete_that_was_lost_without_any_error_is_healed(api: FakeApiServer) -> None:
    api.put(objects.api_key(MINTED))
    api.watch_faults.extend(["end"] * 20)
    async with reflecting(api, relist_seconds=0.05) as state:
        api.delete(objects.api_key(MINTED), quietly=True)
        await until(lambda: not known(state))


@pytest.mark.parametrize("fault", ["cut_json", "truncated"])
async def test_a_cut_event_is_asked_for_again(api: FakeApiServer, fault: Fault) -> None:
    api.watch_faults.append(fault)
    async with reflecting(api) as state:
        api.put(objects.api_key(MINTED))
        await until(lambda: known(state))
    assert api.lists() == 1


@pytest.mark.usefixtures("impatient")
async def test_a_silent_watch_is_given_up(api: FakeApiServer) -> None:
    api.put(objects.api_key(MINTED))
    api.watch_faults.append("silent")
    async with reflecting(api) as state:
        api.delete(objects.api_key(MINTED))
        await until(lambda: not known(state))


async def test_a_watch_continues_where_the_last_one_ended(api: FakeApiServer) -> None:
    api.put(objects.api_key(MINTED))
    api.watch_faults.append("end")
    async with reflecting(api):
        await until(lambda: len(api.watches()) == 2)
        api.bookmark()
        await api.stop()
        await api.start()
        await until(lambda: len(api.watches()) >= 3)
    versions = [watch["resourceVersion"] for watch in api.watches()]
    assert versions[:2] == ["2", "2"]
    assert versions[-1] == "3"


async def test_the_last_state_stays_while_the_api_server_is_away(api: FakeApiServer) -> None:
    api.put(objects.api_key(MINTED))
    async with reflecting(api) as state:
        await api.stop()
        await asyncio.sleep(0.1)
        assert known(state)
        api.delete(objects.api_key(MINTED))
        await api.start()
        await until(lambda: not known(state))


async def test_an_object_that_makes_no_sense_is_as_good_as_gone(api: FakeApiServer) -> None:
    api.put(objects.api_key(MINTED))
    async with reflecting(api) as state:
        broken = objects.api_key(MINTED)
        broken["status"]["hashes"] = [{"sha256": None}, 7]
        api.put(broken)
        await until(lambda: not known(state))
        api.put(objects.api_key(MINTED))
        await until(lambda: known(state))


async def test_a_cluster_watches_three_kinds_where_it_was_told_to_and_the_gateways(
    api: FakeApiServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    api.list_faults.extend(["forbidden"] * 2)
    cluster = Cluster(ApiServer(api.url, token_file=token), ("a", "b"), State(), "own")
    assert len(cluster.unsynced()) == 7
    task = asyncio.create_task(cluster.run())
    await until(lambda: not cluster.unsynced())
    cluster._of_keys["a"].heard_at = -math.inf
    assert cluster.keys_age("a") == math.inf
    assert max(cluster.keys_age("b"), cluster.keys_age(None), cluster.keys_age("unheard of")) < 60
    assert set(cluster.ages()) == {
        f"{kind} in {namespace}"
        for kind in ("apikeys", "modeldeployments", "endpointslices")
        for namespace in ("a", "b")
    } | {"gateways"}
    assert {path for path, _, _ in api.requests} == {
        f"{prefix}/namespaces/{namespace}/{kind}"
        for prefix, kind in (
            ("/apis/rerank.dev/v1alpha1", "apikeys"),
            ("/apis/rerank.dev/v1alpha1", "modeldeployments"),
            ("/apis/discovery.k8s.io/v1", "endpointslices"),
        )
        for namespace in ("a", "b")
    } | {PEERS_PATH}
    assert {query["labelSelector"] for path, query, _ in api.requests if path == PEERS_PATH} == {
        "rerank.dev/gateway-peers=true"
    }
    selected = {
        path
        for path, query, _ in api.requests
        if query.get("labelSelector") == "app.kubernetes.io/managed-by=rerank-operator"
    }
    assert len(selected) == 2
    assert {header for _, _, header in api.requests} == {"Bearer first"}
    token.write_text("second\n")
    await api.stop()
    await api.start()
    await until(lambda: api.requests[-1][2] == "Bearer second")
    task.cancel()
    await asyncio.wait([task])
