"""Runs one of the scripts beside it in the environment that has its libraries; prints what came out as JSON.

    python run.py with_cohere http://127.0.0.1:8080 < cases.json

A script's `CLIENTS` are functions that rank through a library. Nothing of ours is imported here: the
libraries' environments do not have it.
"""

import contextlib
import importlib.util
import json
import sys
import time
from pathlib import Path


def main() -> None:
    """For each client and case: `{"ranked": [[index, score], …]}` or `{"failed": …}`."""
    name, gateway = sys.argv[1:]
    cases = json.load(sys.stdin)
    started = time.monotonic()
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    print(f"{name}: imported in {time.monotonic() - started:.1f} s", file=sys.stderr)
    out = {}
    with contextlib.redirect_stdout(sys.stderr):
        for client, rank in script.CLIENTS.items():
            out[client] = {case: attempt(rank, gateway, **fields) for case, fields in cases.items()}
    json.dump(out, sys.stdout)


def attempt(rank, gateway: str, **fields) -> dict:
    """One call, and whatever the library makes of the answer."""
    try:
        return {"ranked": [[index, float(score)] for index, score in rank(gateway, **fields)]}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


main()
