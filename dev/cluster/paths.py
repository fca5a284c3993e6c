"""Where things are: what is kept for next time, and what `down` removes."""

import os
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
REPOSITORY = SOURCE.parent.parent


def cache_dir() -> Path:
    """Return the folder of everything that is built once and kept, by content."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "rerank-operator"


def state_dir() -> Path:
    """Return the folder of the running cluster. `down` removes it."""
    return Path(os.environ.get("RERANK_CLUSTER_STATE", "/var/lib/rerank-operator/cluster"))


@dataclass(frozen=True)
class Layout:
    """The files of one cluster, whether a whole node or a control plane alone."""

    root: Path

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pids(self) -> Path:
        return self.root / "pids"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """One JSON event a line: verb, user, userAgent, objectRef, responseStatus."""
        return self.logs / "audit.log"

    def create(self) -> None:
        """Make the folders. The keys are for their owner alone."""
        for folder in (self.root, self.pki, self.logs, self.pids, self.config, self.etcd):
            folder.mkdir(parents=True, exist_ok=True)
        self.pki.chmod(0o700)
        self.etcd.chmod(0o700)
