"""Programs that come from the system: installed by apt on Debian as root, else named in one line."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.commands import run
from dev.cluster.errors import ClusterError
from dev.cluster.locking import locked
from dev.cluster.network import CNI_PLUGINS
from dev.cluster.progress import say

SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/go/bin"


@dataclass(frozen=True)
class Tool:
    """Something that must be on the machine, and the Debian package that brings it."""

    name: str
    package: str
    path: Path | None = None
    """A file to look for, where the tool is no program on PATH."""

    def present(self) -> bool:
        if self.path is not None:
            return self.path.exists()
        return shutil.which(self.name, path=SEARCH_PATH) is not None


CONTROL_PLANE_TOOLS = (Tool("openssl", "openssl"),)
NODE_TOOLS = (
    Tool("containerd", "containerd"),
    Tool("runc", "runc"),
    Tool("bridge", "containernetworking-plugins", CNI_PLUGINS / "bridge"),
    Tool("ip", "iproute2"),
    Tool("nft", "nftables"),
    Tool("iptables", "iptables"),
    Tool("conntrack", "conntrack"),
    Tool("socat", "socat"),
    Tool("ethtool", "ethtool"),
    Tool("mount", "mount"),
)
IMAGE_TOOLS = (
    Tool("buildah", "buildah"),
    Tool("skopeo", "skopeo"),
    Tool("mmdebstrap", "mmdebstrap"),
)


def install(tools: tuple[Tool, ...]) -> None:
    """Install the packages of those tools which are missing.

    Raises:
        ClusterError: some are missing and this is not Debian, or we are not root.
    """
    if not _missing(tools):
        return
    with locked("packages"):  # apt refuses to run twice at once
        _install(_missing(tools))
    left = [tool.name for tool in tools if not tool.present()]
    if left:
        raise ClusterError(f"still missing after installing packages: {' '.join(left)}")


def _missing(tools: tuple[Tool, ...]) -> list[str]:
    return sorted({tool.package for tool in tools if not tool.present()})


def _install(missing: list[str]) -> None:
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"missing on this machine: {' '.join(missing)} (names of Debian packages)")
    say("packages", f"installing {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], environment=quiet)
    options = ["-y", "-q", "--no-install-recommends"]
    run(["apt-get", "install", *options, *missing], environment=quiet, seconds=600)
