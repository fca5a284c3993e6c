"""`make bench`: the benchmarks of the gateway; writes them into `bench/RESULTS.md`.

`python -m bench NAME…` (`make bench RUN=NAME`) runs those named alone; `scale`, of the operator, takes so
long that it runs only when it is named.
"""

import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final

from bench import capacity, cost, limits, page, programs, scale, scheduling
from bench.programs import ROOT

RESULTS: Final = ROOT / "bench" / "RESULTS.md"
GATEWAY: Final = ("uvicorn", "uvloop", "httptools", "aiohttp", "orjson", "fastapi", "httpx2")
OPERATOR: Final = ("uvloop", "kopf", "aiohttp", "kubernetes", "pydantic", "orjson")

SECTIONS: Final[dict[str, tuple[str, Callable[[], str], Iterable[str]]]] = {
    "cost": ("Cost of a request", cost.report, GATEWAY),
    "scheduling": ("Scheduling", scheduling.report, GATEWAY),
    "limits": ("Limits", limits.report, GATEWAY),
    "capacity": ("Capacity", capacity.report, GATEWAY),
    "scale": ("Scale of the operator", scale.report, OPERATOR),
}
LONG: Final = frozenset({"scale"})


def main(names: list[str]) -> None:
    """Run the sections named, or all but the long ones, and put them on the page."""
    unknown = set(names) - set(SECTIONS)
    if unknown:
        sys.exit(f"bench: no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    order = [title for title, _, _ in SECTIONS.values()]
    for name in names or [name for name in SECTIONS if name not in LONG]:
        title, report, packages = SECTIONS[name]
        where = _where(name, packages)
        text = f"{where}\n\n{report()}"
        former = RESULTS.read_text() if RESULTS.exists() else ""
        RESULTS.write_text(page.compose(former, {title: text}, order=order))
        print(f"## {title}\n\n{text}", flush=True)


def _where(name: str, packages: Iterable[str]) -> str:
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    python = f"Python {platform.python_version()}"
    day = time.strftime("%Y-%m-%d")
    return f"By `python -m bench {name}`, {day}, {programs.machine()}, {python}, {versions}."


if __name__ == "__main__":
    main(sys.argv[1:])
