"""Many worlds beside one that is left in peace: whether each comes to the same state."""

import difflib
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from tests.apiserver.api import Object, eventually
from tests.apiserver.crash_world import CrashWorld, crash_world
from tests.apiserver.lone_operator import Ground

CONVERGE_SECONDS = 30.0

_numbers = itertools.count(1)

Doom = Callable[[CrashWorld], None]
"""Says where the operator of a world is killed."""


@dataclass(frozen=True)
class Peace:
    """A run that is left in peace: its writes, the state that it comes to, and the news that it tells."""

    points: list[str]
    state: Object
    told: Counter[str]


@dataclass(frozen=True)
class Outcome:
    """How a world ended. `seconds`: from the end of the scenario until all was as it should be."""

    kills: list[str]
    unasked_ends: int
    seconds: float
    difference: str


def undisturbed(ground: Ground) -> Peace:
    """Play the scenario without a kill."""
    with crash_world(ground, _name()) as world:
        world.run()
        assert world.deadly.kills == []
        assert world.unasked_ends == 0
        return Peace(world.deadly.points, world.state(), world.told())


def play(ground: Ground, dooms: Sequence[Doom], peace: Future[Peace], *, together: int) -> list[Outcome]:
    """A world for each, so many at a time."""
    with ThreadPoolExecutor(together) as pool:
        return list(pool.map(lambda doom: _played(ground, doom, peace), dooms))


def _played(ground: Ground, doom: Doom, peace: Future[Peace]) -> Outcome:
    with crash_world(ground, _name()) as world:
        doom(world)
        began, difference = time.monotonic(), ""
        try:
            world.run()
            wanted = peace.result()
            began = time.monotonic()
            with suppress(AssertionError):
                eventually("", lambda: world.state() == wanted.state, seconds=CONVERGE_SECONDS, pause=0.5)
            difference = _difference(wanted.state, world.state())
            difference += "".join(f"told too often: {news}\n" for news in world.told() - wanted.told)
        except AssertionError as error:
            difference = f"{world.name}: {error}"
        return Outcome(world.deadly.kills, world.unasked_ends, time.monotonic() - began, difference)


def _difference(wanted: Object, found: Object) -> str:
    before, after = (json.dumps(body, indent=1, sort_keys=True).splitlines() for body in (wanted, found))
    return "\n".join(difflib.unified_diff(before, after, "left in peace", "killed", lineterm="", n=2))


def _name() -> str:
    return f"crash-{next(_numbers)}"
