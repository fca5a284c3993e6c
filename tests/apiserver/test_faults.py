"""The way to the API server fails for seconds while specs change: then all comes right, and nothing was lost.

Some faults at a time, each between an operator of its own and the API server. `make soak RUN=faults`
has them last longer.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from tests.apiserver.api import Api
from tests.apiserver.fault_world import MOST_REQUESTS_A_SECOND, MOST_WRITES, PAST, FaultWorld, Outcome
from tests.apiserver.faults import FAULTS
from tests.apiserver.fork_server import ForkServer
from tests.apiserver.lone_operator import Ground
from tests.apiserver.operator_process import Operator

SECONDS = 4.0
TOGETHER = 6


@pytest.fixture(scope="module")
def outcomes(
    api: Api, operator: Operator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """All of them under way. No other operator runs meanwhile: it would see these namespaces too."""
    if operator.process is not None:
        operator.stop()
    with ForkServer() as forks, ThreadPoolExecutor(TOGETHER) as pool:
        ground = Ground(api, tmp_path_factory.mktemp("faults"), operator.token, forks)
        worlds = (FaultWorld(ground, f"fault-{number}") for number in range(len(FAULTS) + len(PAST)))
        found = {
            name: pool.submit(partial(next(worlds).play, fault(), seconds=SECONDS))
            for name, fault in FAULTS.items()
        }
        found |= {
            name: pool.submit(partial(next(worlds).play_back, past, seconds=SECONDS))
            for name, past in PAST.items()
        }
        yield found


@pytest.mark.parametrize("name", [*FAULTS, *PAST])
def test_all_comes_right_when_it_is_over(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    outcome = outcomes[name].result()
    assert outcome.wrong == []
    assert outcome.written <= MOST_WRITES
    assert outcome.asked <= MOST_REQUESTS_A_SECOND
