"""Killed just before and just after writes of every kind, the operator comes to what one makes in peace.

`make soak RUN=crashes` does it at every write there is, each in a run of its own; here several share a run.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.apiserver.api import Api
from tests.apiserver.crash_world import CrashWorld
from tests.apiserver.crash_worlds import Doom, play, undisturbed
from tests.apiserver.deadly import When
from tests.apiserver.fork_server import ForkServer
from tests.apiserver.kubelet import node
from tests.apiserver.lone_operator import Ground
from tests.apiserver.operator_process import Operator

KILLS: tuple[dict[str, When], ...] = (
    {
        "POST secrets #1": "after",
        "PATCH catalogmodels/entry-<namespace> #1": "before",
        "PATCH secrets/k as rerank-operator/k #1": "after",
        "PATCH deployments/rerank-m #1": "before",
        "DELETE poddisruptionbudgets/rerank-auto #1": "before",
        "PATCH configmaps/rerank-m #2": "after",
        "PATCH modeldeployments/auto/status as rerank-operator/autoscaling #2": "after",
        "PATCH secrets/second-name as rerank-operator/named #1": "before",
        "DELETE secrets/first-name #1": "after",
    },
    {
        "PATCH services/rerank-m #1": "after",
        "PATCH poddisruptionbudgets/rerank-auto #1": "after",
        "DELETE poddisruptionbudgets/rerank-auto #1": "after",
        "PATCH apikeys/k/status #1": "before",
        "PATCH apikeys/k/status as rerank-operator/usage #1": "after",
        "PATCH deployments/rerank-auto #2": "before",
        "PATCH deployments/rerank-m #2": "after",
        "DELETE secrets/shown #1": "before",
    },
)


@pytest.fixture
def ground(api: Api, operator: Operator, tmp_path: Path) -> Iterator[Ground]:
    """No other operator runs meanwhile: it would see these namespaces too."""
    if operator.process is not None:
        operator.stop()
    with ForkServer() as forks, node(api, "n-crashes"):
        yield Ground(api, tmp_path, operator.token, forks)


def test_killed_at_its_writes_it_ends_in_the_same_state(ground: Ground) -> None:
    with ThreadPoolExecutor(1) as beside:
        peace = beside.submit(undisturbed, ground)
        outcomes = play(ground, [killed_at(kills) for kills in KILLS], peace, together=len(KILLS))
    differences = "".join(outcome.difference for outcome in outcomes)
    assert differences == "", differences  # in full
    assert [sorted(outcome.kills) for outcome in outcomes] == [
        sorted(f"{when} {point}" for point, when in kills.items()) for kills in KILLS
    ]
    assert sum(outcome.unasked_ends for outcome in outcomes) == 0


def killed_at(kills: dict[str, When]) -> Doom:
    """Once at each of these writes."""

    def doom(world: CrashWorld) -> None:
        left = dict(kills)
        world.deadly.choose = lambda point: left.pop(point, None)

    return doom
