"""The operator is killed hundreds of times at work on a real API server: it makes the same in the end."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from dev.cluster import temporary
from dev.cluster.access import Access
from soak.bound import Bound
from tests.apiserver.api import Api, with_crds
from tests.apiserver.crash_world import CrashWorld
from tests.apiserver.crash_worlds import CONVERGE_SECONDS, Doom, Outcome, Peace, play, undisturbed
from tests.apiserver.deadly import When
from tests.apiserver.fork_server import ForkServer
from tests.apiserver.kubelet import node
from tests.apiserver.lone_operator import Ground
from tests.apiserver.operator_process import install_rights

_TOGETHER: Final = 6
_KILLS: Final = 500
_KILLS_OF_A_WORLD: Final = 10
_LONGEST_LIFE_SECONDS: Final = 2.5


def every_write(length: float) -> list[Bound]:
    """Each write is the last of an operator twice: once it is withheld, once only its answer is."""
    with ground() as shared:
        peace = _finished(undisturbed(shared))
        points = peace.result().points
        dooms = [_at(point, when) for point in points for when in ("before", "after")]
        dooms = dooms[:: max(1, round(1 / length))]
        outcomes = play(shared, dooms, peace, together=_TOGETHER)
    missed = sum(not outcome.kills for outcome in outcomes)
    return [
        Bound("writes of a run that is left in peace", len(points)),
        Bound("runs, each to be cut at one of them", len(dooms)),
        Bound("of these, runs that did without that write", missed, len(dooms) // 20),
        *_told(outcomes),
    ]


def at_random(length: float) -> list[Bound]:
    """Ten operators of each world are killed, up to 2.5 s after each began to work."""
    count = max(1, round(_KILLS * length / _KILLS_OF_A_WORLD))
    with ground() as shared:
        peace = _finished(undisturbed(shared))
        outcomes = play(shared, [_now_and_then(seed) for seed in range(count)], peace, together=_TOGETHER)
    return [Bound("runs", count), *_told(outcomes)]


def _told(outcomes: Sequence[Outcome]) -> list[Bound]:
    for outcome in outcomes:
        if outcome.difference:
            print(f"\nkilled {outcome.kills}: {outcome.difference}", flush=True)
    return [
        Bound("operators killed", sum(len(outcome.kills) for outcome in outcomes)),
        Bound("runs that ended in another state", sum(bool(o.difference) for o in outcomes), 0),
        Bound("operators that ended by themselves", sum(o.unasked_ends for o in outcomes), 0),
        Bound("longest time to converge", max(o.seconds for o in outcomes), CONVERGE_SECONDS, "s"),
    ]


def _at(point: str, when: When) -> Doom:
    """Once, at that write."""

    def doom(world: CrashWorld) -> None:
        world.deadly.choose = lambda found: when if found == point else None

    return doom


def _now_and_then(seed: int) -> Doom:
    def doom(world: CrashWorld) -> None:
        chance = random.Random(seed)  # the same moments in every run
        world.moments = iter([chance.uniform(0, _LONGEST_LIFE_SECONDS) for _ in range(_KILLS_OF_A_WORLD)])

    return doom


def _finished(peace: Peace) -> Future[Peace]:
    future: Future[Peace] = Future()
    future.set_result(peace)
    return future


@contextmanager
def ground() -> Iterator[Ground]:
    """An API server with a node, for many operators."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plane = stack.enter_context(temporary.control_plane(folder / "plane"))
        api = with_crds(Api(Access.to(plane)))
        forks = stack.enter_context(ForkServer())
        stack.enter_context(node(api, "node"))
        yield Ground(api, folder, install_rights(api), forks)
