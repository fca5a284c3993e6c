"""The gateway's reflector against a real API server: what is seen, how soon, with which rights."""

import asyncio
import contextlib
import dataclasses
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable

import pytest

from rerank_api import keys
from rerank_gateway import api_server, reflector
from rerank_gateway.api_server import ApiServer
from rerank_gateway.records import Address, KeyRecord, Kind, ObjectId
from rerank_gateway.reflector import Cluster
from rerank_gateway.state import State
from tests.apiserver import kubelet
from tests.apiserver.api import RERANK, Api, Object
from tests.rerank_gateway import fault_proxy
from tests.rerank_gateway.fault_proxy import FaultProxy

pytestmark = pytest.mark.usefixtures("connections_end")

_RIGHTS = [
    {
        "apiGroups": ["rerank.dev"],
        "resources": ["apikeys", "modeldeployments"],
        "verbs": ["list", "watch"],
    },
    {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["list", "watch"],
    },
]


@contextlib.asynccontextmanager
async def reflecting(
    server: ApiServer, *namespaces: str, own_namespace: str | None = None
) -> AsyncIterator[State]:
    """A gateway's state that is in sync."""
    state = State()
    cluster = Cluster(server, namespaces, state, own_namespace)
    task = asyncio.create_task(cluster.run())
    try:
        await until(lambda: not cluster.unsynced())
        yield state
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.005)


def administrator(api: Api) -> ApiServer:
    return api_server.from_kubeconfig(api.access.kubeconfig)


def grant(api: Api, namespace: str, minted: keys.MintedKey, name: str) -> str:
    """Make an APIKey with a hash in its status, as the operator would. Returns its path."""
    collection = f"{RERANK}/namespaces/{namespace}/apikeys"
    key = {"apiVersion": "rerank.dev/v1alpha1", "kind": "APIKey", "metadata": {"name": name}, "spec": {}}
    api.create(collection, key)
    known = {"keyId": minted.key_id, "sha256": minted.sha256, "notBefore": "2026-01-01T00:00:00Z"}
    status: Object = {"keyId": minted.key_id, "hashes": [known]}
    api.merge(f"{collection}/{name}/status", {"status": status})
    return f"{collection}/{name}"


async def test_keys_appear_and_stop_within_a_second_at_every_replica(api: Api, namespace: str) -> None:
    minted = [keys.mint() for _ in range(5)]
    appeared, stopped = [], []
    async with reflecting(administrator(api)) as first, reflecting(administrator(api), namespace) as second:
        for number, key in enumerate(minted):
            path = await asyncio.to_thread(grant, api, namespace, key, f"key-{number}")
            start = time.monotonic()
            await until(lambda: all(state.keys(key.sha256) for state in (first, second)))  # noqa: B023
            appeared.append(time.monotonic() - start)
            if number % 2:
                await asyncio.to_thread(api.delete, path)
            else:
                await asyncio.to_thread(api.merge, path, {"spec": {"disabled": True}})
            start = time.monotonic()
            await until(lambda: not any(valid(state, key) for state in (first, second)))  # noqa: B023
            stopped.append(time.monotonic() - start)
    assert statistics.median(appeared) < 1
    assert statistics.median(stopped) < 1


def valid(state: State, minted: keys.MintedKey) -> bool:
    return any(not known.key.disabled for known in state.keys(minted.sha256))


async def test_a_quiet_watch_keeps_keys_confirmed(
    api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing happens, and the API server still says so again and again: by bookmarks, by ending watches."""
    monkeypatch.setattr(reflector, "WATCH_SECONDS", 2)
    cluster = Cluster(administrator(api), (namespace,), State())
    task = asyncio.create_task(cluster.run())
    await until(lambda: not cluster.unsynced())
    oldest = 0.0
    for _ in range(70):
        await asyncio.sleep(0.1)
        oldest = max(oldest, cluster.keys_age(namespace))
    task.cancel()
    await asyncio.wait([task])
    assert 0.5 < oldest < 4


@pytest.mark.parametrize("fault", ["refuse", "half_open"])
async def test_a_key_deleted_behind_a_broken_network_is_gone_after_it(
    api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch, fault: fault_proxy.Fault
) -> None:
    monkeypatch.setattr(reflector, "WATCH_DEADLINE_SECONDS", 3)
    minted = keys.mint()
    path = await asyncio.to_thread(grant, api, namespace, minted, "search")
    server = administrator(api)
    async with FaultProxy(int(server.url.rpartition(":")[2])) as proxy:
        behind = dataclasses.replace(server, url=f"https://127.0.0.1:{proxy.port}")
        async with reflecting(behind, namespace) as state:
            assert valid(state, minted)
            proxy.fail(fault)
            await asyncio.to_thread(api.delete, path)
            await asyncio.sleep(0.5)
            assert valid(state, minted)
            proxy.fail("none")
            await until(lambda: not valid(state, minted))


async def test_a_service_account_needs_no_more_than_to_read_three_kinds(api: Api, namespace: str) -> None:
    rules = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api.create(account, {"metadata": {"name": "gateway"}})
    token = api.create(f"{account}/gateway/token", {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    api.create(f"{rules}/roles", {"metadata": {"name": "gateway"}, "rules": _RIGHTS})
    binding = {
        "metadata": {"name": "gateway"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gateway"},
        "subjects": [{"kind": "ServiceAccount", "name": "gateway", "namespace": namespace}],
    }
    api.create(f"{rules}/rolebindings", binding)
    without_certificate = ssl.create_default_context(cafile=str(api.access.authority))
    server = ApiServer(api.access.url, tls=without_certificate, token=token)
    async with reflecting(server, namespace) as state:
        minted = keys.mint()
        await asyncio.to_thread(grant, api, namespace, minted, "search")
        await until(lambda: bool(state.keys(minted.sha256)))
        assert isinstance(state.keys(minted.sha256)[0].key, KeyRecord)


async def test_the_slices_of_a_models_service_are_found(api: Api, namespace: str) -> None:
    """Labels of a Service reach its EndpointSlices through the real controller."""
    labels = {"app.kubernetes.io/managed-by": "rerank-operator", "rerank.dev/model": "minilm"}
    pod = {
        "metadata": {"name": "replica", "labels": labels},
        "spec": {
            "nodeName": f"node-of-{namespace}",
            "containers": [
                {"name": "serve", "image": "x", "ports": [{"name": "http", "containerPort": 8000}]}
            ],
        },
    }
    service = {
        "metadata": {"name": "rerank-minilm", "labels": labels},
        "spec": {
            "clusterIP": "None",
            "selector": {"rerank.dev/model": "minilm"},
            "ports": [{"name": "http", "port": 8000, "targetPort": "http"}],
        },
    }
    pods = f"/api/v1/namespaces/{namespace}/pods"
    # The controller leaves out pods on nodes that do not exist.
    with kubelet.node(api, f"node-of-{namespace}"):
        async with reflecting(administrator(api)) as state:

            def addresses() -> list[Address]:
                return [replica.address for replica in state.replicas(ObjectId(namespace, "minilm"))]

            await asyncio.to_thread(api.create, f"/api/v1/namespaces/{namespace}/services", service)
            await asyncio.to_thread(api.create, pods, pod)
            await asyncio.to_thread(api.merge, f"{pods}/replica/status", {"status": _status("True")})
            await until(lambda: addresses() == [Address("10.9.8.7", 8000)])
            await asyncio.to_thread(api.merge, f"{pods}/replica/status", {"status": _status("False")})
            await until(lambda: addresses() == [])
            assert state.count(Kind.SLICE) >= 1


def _status(ready: str) -> Object:
    return {
        "phase": "Running",
        "podIP": "10.9.8.7",
        "podIPs": [{"ip": "10.9.8.7"}],
        "conditions": [{"type": "Ready", "status": ready}],
    }
