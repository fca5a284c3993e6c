"""What many resources take is counted here in little; `python -m bench scale` measures thousands."""

import asyncio
import time
from collections import Counter

from bench.crowd import Crowd, Maker
from bench.tally import Tally
from tests.apiserver.api import Api, eventually
from tests.apiserver.operator_process import AuditLog, Operator

CROWD = Crowd(models=10, replicas=0)
IDLE_SECONDS = 3.0
CHILDREN = ("configmaps", "services", "networkpolicies", "deployments")


def test_each_resource_takes_few_requests_and_none_once_it_is_settled(
    api: Api, operator: Operator, audit: AuditLog
) -> None:
    """Models without replicas: how often controllers tell of pods is a matter of time."""
    if operator.process is not None:
        operator.stop()
    maker = Maker(api.access)
    tally = Tally(audit.file, audit.user, frozenset(CROWD.namespaces()))
    try:
        asyncio.run(maker.make(CROWD))
        tally.skip()
        operator.start()
        asyncio.run(maker.settled(CROWD, seconds=120))
        eventually("the controllers have done their part", lambda: _rolled_out(api), seconds=120)
        eventually("nothing more is asked", lambda: _silent(tally), seconds=60, pause=0)
        asked = tally.requests
        models, keys = CROWD.models, CROWD.keys
        for child in CHILDREN:
            assert asked["patch", child] == models
        assert asked["patch", "poddisruptionbudgets"] == 0, "no model has several replicas"
        assert asked["patch", "secrets"] == keys
        assert asked["patch", "apikeys/status"] == keys
        assert models <= asked["patch", "modeldeployments/status"] <= 2 * models
        # They were listed; and the events of our own writes ask for no look.
        assert asked["get", "apikeys"] <= 0.2 * keys
        # A look reads all. Of a Deployment its controller tells up to four times, now and then amid a look.
        for child in (*CHILDREN, "poddisruptionbudgets"):
            assert models <= asked["get", child] <= 6 * models

        tally.skip()
        time.sleep(IDLE_SECONDS)
        assert _but_watches(tally) == Counter()
        operator.stop()
        tally.skip()
        operator.start()
        looked = CROWD.models + CROWD.keys
        eventually(
            "all are looked at",
            lambda: operator.metric("rerank_operator_reconciles_total") >= looked,
            seconds=60,
        )
        eventually("nothing more is asked", lambda: _silent(tally), seconds=60, pause=0)
        assert tally.read().writes == 0
    finally:
        for namespace in CROWD.namespaces():
            api.delete(f"/api/v1/namespaces/{namespace}")


def _rolled_out(api: Api) -> bool:
    """The Deployment controller, which has other tests' remains to see to, has told of each Deployment."""
    deployments = [
        item
        for namespace in CROWD.namespaces()
        for item in api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
    ]
    return all(
        item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
        for item in deployments
    )


def _silent(tally: Tally) -> bool:
    """For two seconds nothing was asked."""
    before = _but_watches(tally)
    time.sleep(2)
    return _but_watches(tally) == before


def _but_watches(tally: Tally) -> Counter[tuple[str, str]]:
    return Counter({key: count for key, count in tally.read().requests.items() if key[0] != "watch"})
