"""How a new revision takes the place of the old one."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from rerank_operator.pods import Claim, Pod
from rerank_operator.rollout import ONE_BY_ONE, PATIENCE, RECREATE, SURGE, patience_left, strategy
from tests.rerank_operator.samples import TEMPLATE, pod, serving

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
GPU = "nvidia.com/gpu"
CLAIM = Claim({GPU: Decimal(1), "memory": Decimal(8), "pods": Decimal(1)}, placement="p")
NO_GPU = (
    f"0/3 nodes are available: 1 Insufficient {GPU}, 2 node(s) didn't match Pod's node affinity/selector."
)


def old(name: str = "old", **changes: Any) -> Pod:
    return serving(name, **{"template": "older", "claim": CLAIM, **changes})


def waiting(words: str = NO_GPU, *, seconds: float = 60, **changes: Any) -> Pod:
    """A replica of the newest revision that finds no node."""
    since = NOW - timedelta(seconds=seconds)
    fields = {"unschedulable": words, "unschedulable_since": since, "claim": CLAIM, **changes}
    return pod("new", scheduled=False, **fields)


def auto(*pods: Pod, live: dict[str, Any] | None = None) -> Any:
    return strategy("Auto", template=TEMPLATE, live=live, pods=pods, now=NOW)


def deployment(chosen: Any, *, template: str = TEMPLATE) -> dict[str, Any]:
    annotations = {"rerank.dev/template": template}
    return {"spec": {"strategy": chosen, "template": {"metadata": {"annotations": annotations}}}}


def test_what_is_asked_for_is_done() -> None:
    for pods in ([], [old(), waiting()]):
        assert strategy("Surge", template=TEMPLATE, live=None, pods=pods, now=NOW) == SURGE
        assert strategy("Recreate", template=TEMPLATE, live=None, pods=pods, now=NOW) == RECREATE


def test_a_new_replica_starts_beside_the_old_ones_where_there_is_room() -> None:
    assert auto() == SURGE
    assert auto(old()) == SURGE
    assert auto(old(), pod("new", claim=CLAIM)) == SURGE


def test_without_room_old_ones_make_way_one_by_one() -> None:
    assert auto(old(), waiting()) == ONE_BY_ONE
    assert auto(old(), waiting("0/1 nodes are available: 1 Too many pods.")) == ONE_BY_ONE


TAINTED = "0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."
IN_VAIN: dict[str, list[Pod]] = {
    "a place may show in a moment": [old(), waiting(seconds=PATIENCE.total_seconds() - 1)],
    "one of ours is leaving its place": [old(), waiting(), old("leaving", deleting=True)],
    "the scheduler makes room": [old(), waiting(nominated=True)],
    "no room would help": [old(), waiting(TAINTED)],
    "the new one may not go where the old one is": [
        old(),
        waiting(claim=Claim(CLAIM.requests, placement="other")),
    ],
    "the place of the old one is too small": [
        old(),
        waiting(claim=Claim({GPU: Decimal(2)}, placement="p")),
    ],
    "the old one has no GPU to give": [
        old(claim=Claim({"memory": Decimal(8)}, placement="p")),
        waiting(),
    ],
    "the old one that would do has no place itself": [
        old(scheduled=False, ready=False),
        old("serves", claim=Claim()),
        waiting(),
    ],
}


@pytest.mark.parametrize("pods", IN_VAIN.values(), ids=IN_VAIN)
def test_what_serves_is_not_ended_in_vain(pods: list[Pod]) -> None:
    assert auto(*pods) == SURGE


def test_only_what_there_is_too_little_of_has_to_fit() -> None:
    """More memory is asked for, and it is the GPU that is taken: where the old one goes the new one fits."""
    larger = Claim({GPU: Decimal(1), "memory": Decimal(16)}, placement="p")
    assert auto(old(), waiting(claim=larger)) == ONE_BY_ONE
    assert auto(old(), waiting(f"1 Insufficient memory, 1 Insufficient {GPU}.", claim=larger)) == SURGE


def test_a_claimed_gpu_makes_room_for_one_that_is_claimed_alike() -> None:
    """What a claim of another template would take nobody can know."""
    words = "0/1 nodes are available: 1 cannot allocate all claims."
    mine = Claim({"resourceclaimtemplate/a": Decimal(1)}, placement="p")
    other = Claim({"resourceclaimtemplate/b": Decimal(1)}, placement="p")
    assert auto(old(claim=mine), waiting(words, claim=mine)) == ONE_BY_ONE
    assert auto(old(claim=other), waiting(words, claim=mine)) == SURGE
    assert auto(old(), waiting(words, claim=mine)) == SURGE


def test_old_ones_that_do_not_serve_keep_nothing_waiting() -> None:
    assert auto(old(ready=False)) == ONE_BY_ONE
    assert auto(old(ready=False), old("ready")) == SURGE


def test_a_rollout_goes_on_as_it_began() -> None:
    """Between two replicas nothing waits, and yet the next one will."""
    begun = deployment(ONE_BY_ONE)
    assert auto(old(), serving("new"), live=begun) == ONE_BY_ONE
    assert auto(serving("new"), live=begun) == SURGE, "it is over"
    assert auto(old(), live=deployment(ONE_BY_ONE, template="older")) == SURGE, "that was another one"
    assert auto(old(), live=deployment({"type": "RollingUpdate"})) == SURGE
    assert auto(old(), live=deployment(RECREATE)) == SURGE


def test_it_is_looked_again_when_patience_ends() -> None:
    soon = PATIENCE.total_seconds()
    assert patience_left([old(), waiting(seconds=3), waiting(seconds=1)], now=NOW) == soon - 3
    assert patience_left([waiting(seconds=soon)], now=NOW) is None, "it is decided already"
    assert patience_left([old(), serving("new")], now=NOW) is None


def test_finished_pods_count_for_nothing() -> None:
    assert auto(old(finished=True, ready=False)) == SURGE


def refused(
    words: str, *, seconds: float = 60, template: str = TEMPLATE, moved: float = 60, **spec: Any
) -> dict[str, Any]:
    """A Deployment whose new replica cannot be made. It asks for the same as `CLAIM`, but for `spec`."""

    def ago(seconds: float) -> str:
        return (NOW - timedelta(seconds=seconds)).isoformat()

    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "lastTransitionTime": ago(seconds),
        "message": f'pods "rerank-m-5d8f-x2x4z" is forbidden: {words}',
    }
    conditions = [{"type": "Progressing", "status": "True", "lastUpdateTime": ago(moved)}, failure]
    live = deployment(SURGE, template=template)
    requests = {GPU: "1", "memory": "8", **spec.pop("requests", {})}
    live["spec"]["template"]["spec"] = {"containers": [{"resources": {"requests": requests}}], **spec}
    return {**live, "status": {"conditions": conditions}}


def exceeded(requested: str, used: str, limited: str) -> str:
    return f"exceeded quota: q, requested: {requested}, used: {used}, limited: {limited}"


def full(resource: str, amount: int = 1) -> str:
    """As much is in use as may be."""
    return exceeded(f"{resource}={amount}", *[f"{resource}={4 * amount}"] * 2)


FULL = full(f"requests.{GPU}")
LESS = {"memory": "6"}
MORE = {"memory": "9"}


@pytest.mark.parametrize(
    "live",
    [
        refused(FULL),
        refused(full("pods")),
        refused(full("count/pods")),
        refused(full("limits.memory", 8)),
        refused(full("limits.cpu", 4)),  # of a LimitRange, for all of them alike
        refused(full("pods"), requests=LESS),
        refused(full("count/pods"), requests=LESS),
        refused(exceeded("limits.memory=6,requests.memory=6", *["limits.memory=8,requests.memory=8"] * 2)),
        refused(exceeded("requests.memory=9", "requests.memory=8", "requests.memory=9"), requests=MORE),
    ],
)
def test_where_the_quota_is_used_up_old_ones_make_way_one_by_one(live: dict[str, Any]) -> None:
    assert auto(old(), live=live) == ONE_BY_ONE


SOON = PATIENCE.total_seconds() - 1
NO_HELP: dict[str, tuple[dict[str, Any], list[Pod]]] = {
    "it may be raised in a moment": (refused(FULL, seconds=SOON), [old()]),
    "an older revision was refused, and this one has only begun": (refused(FULL, moved=SOON), [old()]),
    "what one has that leaves is given back": (refused(FULL), [old(), old("leaving", deleting=True)]),
    "the first new one was granted": (refused(FULL), [old(), old("other"), serving("new", claim=CLAIM)]),
    "that was another revision": (refused(FULL, template="older"), [old()]),
    "that was of an earlier spec": ({**refused(FULL), "metadata": {"generation": 2}}, [old()]),
    "it was lowered below what is in use": (refused(exceeded("pods=1", "pods=3", "pods=1")), [old()]),
    "the new one is too much for it": (refused(full("requests.memory", 8), requests=MORE), [old()]),
    "another quota may be for what more is asked of": (refused(full("pods"), requests=MORE), [old()]),
    "the old one gives none of it": (refused(full("limits.cpu", 4), requests=LESS), [old()]),
    "the old one counts in another quota": (refused(FULL, priorityClassName="high"), [old()]),
    "it is no quota": (refused('admission webhook "w" denied the request'), [old()]),
}


@pytest.mark.parametrize(("live", "pods"), NO_HELP.values(), ids=NO_HELP)
def test_no_old_one_ends_for_a_quota_in_vain(live: dict[str, Any], pods: list[Pod]) -> None:
    assert auto(*pods, live=live) == SURGE
