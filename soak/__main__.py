"""`make soak`: runs that take minutes, each with bounds; fails when one is missed.

`python -m soak NAME…` runs only some. SOAK (default 1) times the length of each; 0.1 is a trial.
"""

import os
import resource
import sys
import time
from collections.abc import Callable

from bench.programs import machine
from soak import (
    api_server_away,
    attacks,
    crashes,
    dead_watches,
    faults,
    fuzz,
    lease,
    revocation,
    rolling,
    slow_sockets,
)
from soak.bound import Bound

RUNS: dict[str, Callable[[float], list[Bound]]] = {
    "attacks": attacks.run,
    "fuzz": fuzz.run,
    "slow-sockets": slow_sockets.run,
    "revocation": revocation.run,
    "rolling-gateways": rolling.gateways,
    "rolling-replicas": rolling.replicas,
    "killed-replicas": rolling.killed_replicas,
    "api-server-away": api_server_away.run,
    "lease": lease.run,
    "dead-watches": dead_watches.run,
    "crashes": crashes.every_write,
    "kills": crashes.at_random,
    "faults": faults.run,
}


def main(names: list[str]) -> int:
    """Run those named, or all of them; 1 when a bound was missed."""
    unknown = set(names) - set(RUNS)
    if unknown:
        sys.exit(f"soak: no run {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    length = float(os.environ.get("SOAK", "1"))
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}, length {length:g}", flush=True)
    held = True
    for name in names or RUNS:
        started = time.monotonic()
        bounds = RUNS[name](length)
        print(f"\n{name} ({time.monotonic() - started:.0f} s)")
        for bound in bounds:
            print(f"  {bound}", flush=True)
            held = held and bound.held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
