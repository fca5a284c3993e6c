"""What keys used, from a gateway's port into APIKey.status, past a real API server."""

from collections.abc import Iterator

import pytest

from rerank_api.api_key import APIKey
from tests.apiserver.api import Api, Object, eventually
from tests.apiserver.gateway_port import GatewayPort
from tests.apiserver.operator_process import AuditLog, Operator
from tests.apiserver.test_keys import apply_key, key_path, with_reason
from tests.apiserver.test_survival import LEASE


@pytest.fixture
def port(operator: Operator) -> Iterator[GatewayPort]:
    """A gateway, and the operator asking it often; the others' tests start it anew without."""
    port = GatewayPort()
    if operator.process is not None:
        operator.stop()
    mine = {"RERANK_GATEWAY_PEERS": port.address, "RERANK_USAGE_POLL_SECONDS": "0.2"}
    operator.environment |= mine
    operator.start()
    yield port
    for name in (*mine, "RERANK_USAGE_WRITE_SECONDS"):
        operator.environment.pop(name, None)
    if operator.process is not None:
        operator.stop()
    port.close()


def requests(api: Api, namespace: str) -> int:
    usage = APIKey.parse(api.get(key_path(namespace))).status.usage
    return usage.requests if usage else 0


def owners(key: Object, field: str) -> set[str]:
    return {
        entry["manager"]
        for entry in key["metadata"]["managedFields"]
        if entry.get("subresource") == "status" and f"f:{field}" in entry["fieldsV1"].get("f:status", {})
    }


def test_usage_and_the_rest_of_the_status_do_not_touch_one_another(
    api: Api, namespace: str, port: GatewayPort
) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    before = api.get(key_path(namespace))
    port.use(before, 2)
    eventually("the usage is there", lambda: requests(api, namespace) == 2)
    key = api.get(key_path(namespace))
    assert key["status"]["usage"] | {"gateways": []} == {
        "requests": 2,
        "documents": 6,
        "tokens": 80,
        "rejected": 0,
        "models": [{"name": "bge", "requests": 2, "documents": 6, "tokens": 80, "rejected": 0}],
        "gateways": [],
    }
    assert key["status"]["hashes"] == before["status"]["hashes"]
    assert key["metadata"]["generation"] == before["metadata"]["generation"]
    assert owners(key, "usage") == owners(key, "lastUsedTime") == {"rerank-operator/usage"}
    assert owners(key, "hashes") == owners(key, "conditions") == {"rerank-operator"}

    apply_key(api, namespace, disabled=True)
    with_reason(api, namespace, "Disabled")
    assert api.get(key_path(namespace))["status"]["usage"] == key["status"]["usage"]


def test_nothing_is_written_while_nothing_is_used(
    api: Api, namespace: str, port: GatewayPort, audit: AuditLog
) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    port.use(api.get(key_path(namespace)))
    eventually("the usage is there", lambda: requests(api, namespace) == 1)
    port.asked_again("/usage")
    since = audit.size()
    for _ in range(3):
        port.asked_again("/usage")
    mine = [write for write in audit.writes(since=since) if f"/namespaces/{namespace}/" in write]
    assert mine == []


def test_an_operator_that_is_killed_and_a_gateway_that_starts_anew_count_on(
    api: Api, namespace: str, port: GatewayPort, operator: Operator
) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    key = api.get(key_path(namespace))
    port.use(key, 3)
    eventually("the usage is there", lambda: requests(api, namespace) == 3)
    operator.kill()
    api.delete(LEASE)  # waiting for it to run out is another test's subject
    port.use(key, 4)
    operator.start()
    eventually("the usage is there", lambda: requests(api, namespace) == 7)
    port.restart()
    port.use(key, 5)
    operator.kill()
    api.delete(LEASE)
    operator.start()
    eventually("the usage is there", lambda: requests(api, namespace) == 12)


def test_an_operator_that_is_stopped_leaves_nothing_unwritten(
    api: Api, namespace: str, port: GatewayPort, operator: Operator
) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    key = api.get(key_path(namespace))
    port.use(key)
    eventually("the usage is there", lambda: requests(api, namespace) == 1)
    port.use(key, 10)
    port.asked_again("/usage")
    assert requests(api, namespace) == 1  # a key is written once a minute
    operator.stop()
    assert requests(api, namespace) == 11


def test_a_gateway_that_stops_may_go_when_its_last_is_saved(
    api: Api, namespace: str, port: GatewayPort
) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    key = api.get(key_path(namespace))
    port.use(key)
    eventually("the usage is there", lambda: requests(api, namespace) == 1)
    port.use(key, 2)
    with port.lock:
        port.phase = "stopped"
    eventually("the gateway is told", lambda: port.usage._saved == port.usage._version)
    assert requests(api, namespace) == 3
