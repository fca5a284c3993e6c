"""`python -m dev.hub build DIRECTORY` and `python -m dev.hub serve DIRECTORY [--port N]`.

Environment of `serve`: DEMO_HUB_BYTES_PER_SECOND, such as
`sentence-transformers/all-MiniLM-L6-v2=20000000,*=100000000`, slows downloads down so that their progress can
be watched.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from aiohttp import web

PORT = 8080


def limits(text: str) -> dict[str, int]:
    """`repo=bytes,…` as a table."""
    pairs = (entry.split("=", 1) for entry in text.split(",") if entry.strip())
    return {name.strip(): int(value) for name, value in pairs}


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(prog="python -m dev.hub", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("build", "serve"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=PORT)
    arguments = parser.parse_args()
    if arguments.command == "build":
        from dev.hub.models import build  # noqa: PLC0415 - serving needs neither numpy nor the model's package

        for name, branches in build(arguments.directory).items():
            print(name, branches)
        return
    from dev.hub.server import create_app  # noqa: PLC0415 - as above

    slow = limits(os.environ.get("DEMO_HUB_BYTES_PER_SECOND", ""))
    web.run_app(create_app(arguments.directory, slow), port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
