"""What kubelet and containerd leave behind on a machine, and removing it."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from dev.cluster.commands import succeeds
from dev.cluster.errors import ClusterError
from dev.cluster.paths import Layout

CGROUPS = Path("/sys/fs/cgroup")
CONTAINER_LOG_LINKS = Path("/var/log/containers")


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """Return the mount points below a folder, the last mounted first.

    Args:
        folder: the folder itself does not count.
        mountinfo: content of /proc/self/mountinfo (proc(5)): field 5, with octal escapes.
    """
    prefix = f"{folder}/"
    points = (line.split()[4] for line in mountinfo.splitlines())
    plain = (point.encode().decode("unicode_escape") for point in points)
    return [point for point in plain if point.startswith(prefix)][::-1]


def unmount_below(folder: Path) -> None:
    """Unmount everything below the folder. Idempotent.

    Raises:
        ClusterError: something stays mounted. Then nothing there may be deleted: it may be a folder of
            the host's own, mounted into a pod.
    """
    while points := mounts_below(folder, Path("/proc/self/mountinfo").read_text()):
        # One at a time: with shared parents a mount is listed more than once, and goes at once.
        if not any(succeeds(["umount", "--lazy", point]) for point in points):
            raise ClusterError(f"cannot unmount {points[0]}")


def remove_cgroups() -> None:
    """Remove the kubelet's emptied control groups, of every hierarchy (cgroup v1 and v2)."""
    roots = [CGROUPS / "kubepods", *CGROUPS.glob("*/kubepods")]
    for root in roots:
        for folder, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


def remove_log_links(layout: Layout) -> None:
    """Remove the kubelet's links to logs of pods of this cluster: their folder is not configurable."""
    if not CONTAINER_LOG_LINKS.is_dir():
        return
    for link in CONTAINER_LOG_LINKS.iterdir():
        if link.is_symlink() and str(link.readlink()).startswith(f"{layout.root}/"):
            link.unlink()
    with suppress(OSError):  # not ours alone
        CONTAINER_LOG_LINKS.rmdir()


def remove_state(layout: Layout) -> None:
    """Remove the cluster's folder with everything in it."""
    if layout.root.exists():
        shutil.rmtree(layout.root)
    if layout.root.parent.name == "rerank-operator":
        with suppress(OSError):  # the parent goes too, unless somebody keeps something there
            layout.root.parent.rmdir()
