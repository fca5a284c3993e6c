"""The fuzz tests with a hundred thousand cases, others in every run."""

import os
import random
import re
import subprocess
import sys

from bench.programs import ROOT
from soak.bound import Bound

_TIMES = 40  # so many times what the tests try in `make test`
_TESTS = ("test_fuzz.py", "test_trace.py", "test_revocation.py")
_CASES = re.compile(r"(\d+) passing, \d+ failing")


def run(length: float) -> list[Bound]:
    """The tests' own output goes to the terminal: it holds the seed, and how to try a failing case again."""
    seed = random.randrange(2**32)
    print(f"fuzz: --hypothesis-seed={seed}", flush=True)
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n", "0", "--hypothesis-show-statistics"),
            *("-p", "no:cacheprovider", f"--hypothesis-seed={seed}", "--show-capture=no"),
            *(f"tests/rerank_gateway/{test}" for test in _TESTS),
        ],
        cwd=ROOT,
        env={**os.environ, "FUZZ": str(_TIMES * length)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    cases = sum(int(found) for found in _CASES.findall(process.stdout))
    if process.returncode:
        print(process.stdout)
    return [
        Bound("cases", cases),
        Bound("cases missing", max(0.0, 100_000 * length - cases), 0),
        Bound("tests failed", process.returncode, 0),
    ]
