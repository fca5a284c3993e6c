"""Prometheus' own checker of rules."""

import os
import shutil
from pathlib import Path

from dev.cluster.commands import run
from dev.cluster.errors import ClusterError
from dev.cluster.locking import locked
from dev.cluster.paths import cache_dir


def promtool() -> Path:
    """The program: `$PROMTOOL`, the one on PATH, or the one in Debian's package, which is not installed.

    Raises:
        ClusterError: there is none and no apt to get it with, or apt failed.
    """
    named = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if named:
        return Path(named)
    folder = cache_dir() / "promtool"
    program = folder / "usr/bin/promtool"
    with locked("promtool"):
        if not program.exists():
            _unpack(folder)
    return program


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None:
        raise ClusterError("missing on this machine: promtool (it comes with Prometheus; or set PROMTOOL)")
    folder.mkdir(parents=True, exist_ok=True)
    with locked("packages"):  # apt refuses to run twice at once
        if os.geteuid() == 0:
            run(["apt-get", "update", "-q"])
        run(["apt-get", "download", "-q", "prometheus"], cwd=folder)
    (package,) = folder.glob("prometheus_*.deb")
    extract = 'dpkg-deb --fsys-tarfile "$0" | tar -x ./usr/bin/promtool'
    run(["bash", "-o", "pipefail", "-c", extract, package.name], cwd=folder)
    package.unlink()
