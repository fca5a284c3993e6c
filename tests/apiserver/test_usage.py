"""What keys used, from a gateway's port into APIKey.status, past a real API server."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from rerank_api.api_key import APIKey
from rerank_gateway.records import KeyRecord, ModelRecord, ObjectId
from rerank_gateway.usage import Usage
from tests.apiserver.api import Api, Object, eventually
from tests.apiserver.operator_process import AuditLog, Operator
from tests.apiserver.test_keys import apply_key, key_path, with_reason
from tests.apiserver.test_survival import LEASE


class Port:
    """A gateway's internal port, as far as the operator asks: the real counts and the real answers."""

    def __init__(self) -> None:
        self.usage = Usage("0" * 16, told_apart=1)
        self.phase = "serving"
        self.asked = 0
        self.lock = threading.Lock()
        port = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                with port.lock:
                    body = port.usage.page(dict(parse_qsl(url.query)), port.phase)
                    port.asked += 1
                self.send_response(200 if url.path == "/usage" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def restart(self) -> None:
        """As another process, which has counted nothing."""
        with self.lock:
            self.usage = Usage(f"{int(self.usage.process, 16) + 1:016x}", told_apart=1)

    def use(self, key: Object, times: int = 1) -> None:
        metadata = key["metadata"]
        identity = ObjectId(metadata["namespace"], metadata["name"])
        caller = KeyRecord(identity, metadata["uid"], 0, "", (), None, 9e9, False)
        model = ModelRecord(ObjectId(metadata["namespace"], "bge"), 0, ("bge",), (), None, None)
        with self.lock:
            for _ in range(times):
                self.usage.record(caller, model, 200, documents=3, tokens=40, now=time.time())

    def asked_again(self) -> None:
        """Return when the operator has come by twice more: what it knew then is acted on."""
        before = self.asked
        eventually("the operator asks the gateway", lambda: self.asked >= before + 2)


@pytest.fixture
def port(operator: Operator) -> Iterator[Port]:
    """A gateway, and the operator asking it often; the others' tests start it anew without."""
    port = Port()
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
    port.server.shutdown()
    port.server.server_close()


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
    api: Api, namespace: str, port: Port
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
    api: Api, namespace: str, port: Port, audit: AuditLog
) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    port.use(api.get(key_path(namespace)))
    eventually("the usage is there", lambda: requests(api, namespace) == 1)
    port.asked_again()
    since = audit.size()
    for _ in range(3):
        port.asked_again()
    mine = [write for write in audit.writes(since=since) if f"/namespaces/{namespace}/" in write]
    assert mine == []


def test_an_operator_that_is_killed_and_a_gateway_that_starts_anew_count_on(
    api: Api, namespace: str, port: Port, operator: Operator
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
    api: Api, namespace: str, port: Port, operator: Operator
) -> None:
    apply_key(api, namespace)
    with_reason(api, namespace, "Active")
    key = api.get(key_path(namespace))
    port.use(key)
    eventually("the usage is there", lambda: requests(api, namespace) == 1)
    port.use(key, 10)
    port.asked_again()
    assert requests(api, namespace) == 1  # a key is written once a minute
    operator.stop()
    assert requests(api, namespace) == 11


def test_a_gateway_that_stops_may_go_when_its_last_is_saved(api: Api, namespace: str, port: Port) -> None:
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
