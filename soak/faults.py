"""The way to a real API server fails for a while, in each way that we know, while specs change."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from soak.bound import Bound
from soak.crashes import ground
from tests.apiserver.fault_world import (
    CONVERGE_SECONDS,
    MOST_REQUESTS_A_SECOND,
    MOST_WRITES,
    PAST,
    FaultWorld,
)
from tests.apiserver.faults import FAULTS

# Shorter than a watch and longer: what is still under way at its end differs. Where nothing is answered for
# longer than that the operator rightly ends, which is `dead_watches`' subject.
_SECONDS: Final = (5.0, 30.0, 45.0)
_PAST_SECONDS: Final = 30.0
_TOGETHER: Final = 5


def run(length: float) -> list[Bound]:
    """Each between an operator of its own and the API server."""
    lasting = sorted({max(4.0, seconds * length) for seconds in _SECONDS})
    with ground() as shared, ThreadPoolExecutor(_TOGETHER) as pool:
        worlds = (
            FaultWorld(shared, f"fault-{number}") for number in range(len(lasting) * len(FAULTS) + len(PAST))
        )
        met = {
            f"{name}, {seconds:g} s": pool.submit(partial(next(worlds).play, fault(), seconds=seconds))
            for seconds in lasting
            for name, fault in FAULTS.items()
        } | {
            name: pool.submit(partial(next(worlds).play_back, past, seconds=max(4.0, _PAST_SECONDS * length)))
            for name, past in PAST.items()
        }
        outcomes = {name: future.result() for name, future in met.items()}
    for name, outcome in outcomes.items():
        if outcome.wrong:
            print(f"\n{name}: {outcome.wrong}", flush=True)
    return [
        Bound("faults", len(outcomes)),
        Bound("faults in which anything went wrong", sum(bool(o.wrong) for o in outcomes.values()), 0),
        Bound("most writes for one", max(o.written for o in outcomes.values()), MOST_WRITES),
        Bound("most requests in a second", max(o.asked for o in outcomes.values()), MOST_REQUESTS_A_SECOND),
        *(
            Bound(f"{name}: all well after", outcome.seconds, CONVERGE_SECONDS, "s")
            for name, outcome in outcomes.items()
        ),
    ]
