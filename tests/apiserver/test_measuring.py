"""From what a gateway measured to status.measured and its column, past a real API server."""

from collections.abc import Iterator

import pytest

from rerank_api.model_deployment import ModelDeployment
from tests.apiserver.api import Api, eventually
from tests.apiserver.gateway_port import CALM, GatewayPort, asked_by
from tests.apiserver.models import apply_model, because, model_path, settled
from tests.apiserver.operator_process import AuditLog, Operator
from tests.apiserver.test_autoscaling import managers
from tests.apiserver.test_kubectl import kubectl, table
from tests.apiserver.test_survival import LEASE


@pytest.fixture
def port(operator: Operator) -> Iterator[GatewayPort]:
    """A gateway, which the operator asks as it starts; the others' tests start it anew without."""
    port = GatewayPort()
    with asked_by(operator, port):
        yield port


def measure(port: GatewayPort, namespace: str, tokens: float, median: float) -> None:
    """What the gateway tells of the model from now on."""
    latency = {"medianSeconds": median, "p95Seconds": 4 * median, "requests": 7, "secondsAgo": 1.0}
    port.loads[namespace, "m"] = CALM | {
        "tokensPerSecond": tokens,
        "measuredSecondsAgo": 2.0,
        "latency": latency,
    }


def looks_again(operator: Operator, port: GatewayPort, api: Api) -> None:
    """Another leader asks the gateway: the same one would in a minute."""
    operator.kill()
    api.delete(LEASE)  # waiting for it to run out is another test's subject
    before = port.asked["/load"]
    operator.start()
    eventually("the gateway is asked", lambda: port.asked["/load"] > before)


def test_what_was_measured_stands_in_the_status_beside_the_rest(
    api: Api, namespace: str, operator: Operator, port: GatewayPort, audit: AuditLog
) -> None:
    def writes() -> list[str]:
        found = [write for write in audit.writes(since=since) if "measured" in write]
        assert all(f"/namespaces/{namespace}/modeldeployments/m/status?" in write for write in found)
        return found

    since = audit.size()
    apply_model(api, namespace)
    # The pod is made and looked at by others at their own pace; after that nothing else changes.
    because(api, namespace, "Scheduled", "NoMatchingNode", "there is no node")
    before = settled(api, namespace, lambda body: body["status"]["replicas"] == 1)
    assert "measured" not in before["status"]

    measure(port, namespace, 1234.5, 0.05)
    looks_again(operator, port, api)
    body = settled(api, namespace, lambda body: "measured" in body["status"])
    measured = body["status"].pop("measured")
    assert body["status"] == before["status"]
    times = [measured["throughput"].pop("measuredAt"), measured["latency"].pop("measuredAt")]
    assert measured == {
        "throughput": {"tokensPerSecond": 1234},
        "latency": {"medianSeconds": 0.05, "p95Seconds": 0.2, "requests": 7},
    }
    assert times[0] < times[1]
    assert managers(body, "measured") == {"rerank-operator/measured"}
    assert managers(body, "conditions") == {"rerank-operator"}
    (row,) = table(kubectl(api.access, "get", "md", "-n", namespace, "-o", "wide"))
    assert row["TOKENS/S"] == "1234"

    measure(port, namespace, 2469.0, 0.05)  # another by a fifth, but within ten minutes
    looks_again(operator, port, api)
    apply_model(api, namespace, replicas=2)
    body = settled(api, namespace, lambda body: body["status"]["ready"] == "0/2")
    known = ModelDeployment.parse(api.get(model_path(namespace))).status.measured
    assert known is not None
    assert known.throughput is not None
    assert known.throughput.tokens_per_second == 1234
    assert managers(body, "measured") == {"rerank-operator/measured"}
    operator.stop()
    assert len(writes()) == 1
