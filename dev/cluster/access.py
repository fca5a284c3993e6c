"""What a client of a cluster needs to know. Tests get it from the fixtures of `pytest_plugin`."""

from dataclasses import dataclass
from pathlib import Path

from dev.cluster.control_plane import ControlPlane


@dataclass(frozen=True)
class Access:
    """A way into a cluster as its administrator."""

    url: str
    """The API server, such as `https://127.0.0.1:43211`."""
    kubeconfig: Path
    authority: Path
    """Certificate that signed the API server's."""
    certificate: Path
    key: Path
    audit_log: Path
    """One JSON event a line (audit.k8s.io/v1, level Metadata), for every request."""
    programs: Path
    """Folder of kubectl, helm and the rest."""

    @classmethod
    def to(cls, plane: ControlPlane) -> "Access":
        administrator = plane.administrator
        return cls(
            url=plane.url,
            kubeconfig=plane.layout.kubeconfig,
            authority=plane.authority.pair.certificate,
            certificate=administrator.certificate,
            key=administrator.key,
            audit_log=plane.layout.audit_log,
            programs=Path(plane.programs),
        )

    @property
    def kubectl(self) -> list[str]:
        """The beginning of a kubectl command line for this cluster."""
        return [str(self.programs / "kubectl"), f"--kubeconfig={self.kubeconfig}"]
