"""A key's limits hold over all gateways, which find one another by their Service."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.fixtures import Tutorial
from tests.cluster.harness.gateway import Gateway, ask, listing, question
from tests.cluster.harness.http import Answer
from tests.cluster.harness.objects import api_key
from tests.cluster.harness.waiting import wait_for

LIMIT = 12
AT_EACH = 12


def test_two_gateways_admit_together_what_the_key_may(
    cluster: Cluster, gateway: Gateway, tutorial: Tutorial
) -> None:
    cluster.wait_ready("minilm", "default")
    cluster.kubectl.apply(api_key("limited", "default", limits={"requestsPerMinute": LIMIT}))
    key = cluster.wait_key_ready("limited", "default")
    replicas = gateway.replicas
    assert len(replicas) == 2
    wait_for(
        "every replica takes the key",
        lambda: all(listing(replica, key).status == 200 for replica in replicas),
        seconds=10,
        every=0.1,
    )
    with ThreadPoolExecutor(2 * AT_EACH) as pool:
        asked = [pool.submit(ask, replica, key, question("minilm")) for replica in replicas * AT_EACH]
        answers: list[Answer] = [each.result() for each in asked]
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}, statuses
    # Half of it each gateway may spend by itself; for the rest they must have heard one another.
    assert LIMIT // 2 < statuses[200] <= LIMIT, statuses
    refused = next(answer for answer in answers if answer.status == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert "spec.limits.requestsPerMinute of the APIKey default/limited" in refused.json()["message"]
