"""Runs the scripts of client libraries, each in the environment that its libraries need."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "clients" / "scripts"
SECONDS = 180


async def run(
    environment: str, script: str, url: str, cases: Mapping[str, Mapping[str, Any]], *, home: Path
) -> dict[str, dict[str, Any]]:
    """What each client of a script made of each case.

    Args:
        environment: of those that `make clients` builds.
        script: in `scripts`, without its suffix.
        url: the gateway's.
        cases: what to ask, by name: key, model, query, documents and top_n.
        home: a folder for what libraries write.
    """
    python = ROOT / ".venv-clients" / environment / "bin" / "python"
    assert python.exists(), "make clients builds the environments of the client libraries"
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(SCRIPTS / "run.py"),
        script,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=home,
        # No library is to ask anyone but the gateway.
        env={
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "HAYSTACK_TELEMETRY_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(json.dumps(cases).encode()), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    sys.stderr.write(err.decode())
    assert process.returncode == 0, err.decode()
    found: dict[str, dict[str, Any]] = json.loads(out)
    return found
