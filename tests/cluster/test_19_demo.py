"""`make demo` as a newcomer runs it. Last, because it installs the chart with values of its own."""

import os
import subprocess
import sys

from tests.cluster.harness.cluster import Cluster, repository
from tests.cluster.harness.fixtures import Release, Tutorial

DEMO_SECONDS = 900


def test_the_demo_ranks_the_panda_first(cluster: Cluster, release: Release, tutorial: Tutorial) -> None:
    """With everything built and loaded, it upgrades the release, waits, asks, and prints the table."""
    done = subprocess.run(
        [sys.executable, "-m", "dev.demo"],
        cwd=repository(),
        env={**os.environ, "HUB": "demo", "CLUSTER": "native"},
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    rows = [(row[1].strip(), row[3].strip()) for row in cells if row[1].strip()]
    assert [rank for rank, _ in rows] == ["1", "2", "3"]
    assert rows[0][1].startswith("The giant panda")
    assert [document for _, document in rows[1:]] == ["it is a bear", "hi"]
