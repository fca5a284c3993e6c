"""What the machine was like before the cluster came up, so that `down` can put it back."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from dev.cluster.paths import Layout

# Kernel settings: forwarding is ours, the others are set by the kubelet and kube-proxy by themselves.
SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# Folders that the parts make outside of the state folder and offer no setting for.
FOLDERS = (
    "/etc/cni",
    "/run/containerd",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)


def remember(layout: Layout) -> None:
    """Write down what is there now. Once for each life of a cluster."""
    path = _record(layout)
    if path.exists():
        return
    settings = {}
    for name in SETTINGS:
        with suppress(OSError):  # not every kernel has all of them
            settings[name] = _setting(name).read_text().strip()
    absent = [folder for folder in FOLDERS if not Path(folder).exists()]
    path.write_text(json.dumps({"settings": settings, "absent": absent}))


def restore(layout: Layout) -> None:
    """Put it back. Idempotent."""
    path = _record(layout)
    if not path.exists():
        return
    record = json.loads(path.read_text())
    for name, value in record["settings"].items():
        with suppress(OSError):
            _setting(name).write_text(value)
    for folder in record["absent"]:
        if not (Path(folder) / "containerd.sock").exists():  # another containerd has come since
            shutil.rmtree(folder, ignore_errors=True)
    path.unlink()


def _record(layout: Layout) -> Path:
    return layout.root / "before.json"


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name
