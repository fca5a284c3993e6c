"""`make bench`: the benchmarks of the gateway; writes `bench/RESULTS.md`.

`python -m bench NAME…` runs only some and prints them.
"""

import importlib.metadata
import platform
import sys
import time

from bench import capacity, cost, limits, programs, scheduling
from bench.programs import ROOT

RESULTS = ROOT / "bench" / "RESULTS.md"
PACKAGES = ("uvicorn", "uvloop", "httptools", "aiohttp", "orjson", "fastapi", "httpx2")
SECTIONS = {
    "cost": ("Cost of a request", cost.report),
    "scheduling": ("Scheduling", scheduling.report),
    "limits": ("Limits", limits.report),
    "capacity": ("Capacity", capacity.report),
}


def main(names: list[str]) -> None:
    """Run the sections named, or all of them and keep the result."""
    where = programs.machine()
    unknown = set(names) - set(SECTIONS)
    if unknown:
        sys.exit(f"bench: no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    sections = [SECTIONS[name] for name in names or SECTIONS]
    text = "\n".join([_head(where), *(f"## {title}\n\n{section()}" for title, section in sections)])
    if not names:
        RESULTS.write_text(text)
    print(text)


def _head(where: str) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        "# Benchmarks\n\n"
        f"{time.strftime('%Y-%m-%d')}, {where}, Python {platform.python_version()}, {versions}.\n"
        "Written by `make bench`. Client, engines and servers share the machine: compare within one table.\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
