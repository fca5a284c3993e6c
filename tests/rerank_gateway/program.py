"""The gateway as a program, and others of its package."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def environment(**variables: str) -> dict[str, str]:
    path = os.pathsep.join(str(REPOSITORY / folder) for folder in ("api", "gateway"))
    return {"PATH": os.environ["PATH"], "HOME": "/nowhere", "PYTHONPATH": path, **variables}


def start(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """The gateway on free ports."""
    return subprocess.Popen(
        [sys.executable, "-m", "rerank_gateway", *arguments, "--port", "0", "--internal-port", "0"],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        text=True,
    )


def port(process: "subprocess.Popen[str]") -> int:
    """The public port, from the first line of the log."""
    assert process.stdout is not None
    found = re.search(r'"port":(\d+)', process.stdout.readline())
    assert found
    return int(found[1])
