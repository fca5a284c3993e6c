"""The runtime's environment, made by the Makefile's rule unless PARITY_PYTHON is the interpreter of one, and
the families of the fast subset, built once.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parity import __main__ as suite
from parity.serving import ROOT, Chain

FAMILIES = ("bert", "qwen3", "qwen3-instruction")


@dataclass(frozen=True)
class Built:
    python: Path
    chain: Chain
    work: Path
    families: dict[str, dict[str, Any]]

    def model(self, name: str) -> Path:
        return self.work / name / "model"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    python = Path(os.environ.get("PARITY_PYTHON", ROOT / ".venv-runtime" / "bin" / "python"))
    if "PARITY_PYTHON" not in os.environ:
        subprocess.run(["make", "--silent", ".venv-runtime/.stamp"], cwd=ROOT, check=True)
    work = tmp_path_factory.mktemp("parity")
    families = {family["name"]: family for family in suite.build(python, work, FAMILIES)}
    with Chain(python, work).running() as chain:
        yield Built(python, chain, work, families)
