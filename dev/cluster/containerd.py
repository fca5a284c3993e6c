"""Our own containerd, beside any other on the machine: own root, own socket, own configuration.

Its root lies in the cache and outlives the cluster, so that images are unpacked once.
"""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dev.cluster import network, processes
from dev.cluster.commands import run, succeeds
from dev.cluster.paths import Layout, cache_dir
from dev.cluster.processes import Component
from dev.cluster.waiting import wait_until

NAMESPACE = "k8s.io"
PAUSE_IMAGE = "docker.io/library/rerank-pause:1"
READY_SECONDS = 30.0

# Images are loaded, never pulled: a name that is not there fails at once and asks nobody outside.
NO_REGISTRY = 'server = "http://127.0.0.1:9"\n'


@dataclass(frozen=True)
class Containerd:
    """The container runtime of one node."""

    layout: Layout

    @property
    def root(self) -> Path:
        return cache_dir() / "containerd"

    @property
    def state(self) -> Path:
        return self.layout.root / "containerd"

    @property
    def socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def registries(self) -> Path:
        return self.layout.config / "registries"

    def start(self) -> None:
        """Start it where it does not run, and wait until it answers."""
        self.layout.create()
        self.state.mkdir(exist_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        cni = self.layout.config / "cni"
        cni.mkdir(exist_ok=True)
        (cni / "10-rerank.conflist").write_text(network.cni_config(self.layout))
        hosts = self.registries / "_default" / "hosts.toml"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text(NO_REGISTRY)
        config = self.layout.config / "containerd.toml"
        config.write_text(self.configuration())
        component = Component(
            "containerd", ("containerd", "--config", str(config)), configuration=config.read_text()
        )
        processes.ensure(self.layout, component)

        def answers() -> bool:
            processes.require(self.layout, "containerd")
            return succeeds(self.ctr("version"))

        wait_until("containerd to answer", answers, seconds=READY_SECONDS)

    def stop(self) -> None:
        """Remove every container, then stop it. Images stay."""
        if not processes.running(self.layout, "containerd"):
            if not any(self._shims()) and not self.state.exists():
                return
            self.start()  # after a crash: only containerd itself knows which containers it left
        self.remove_containers()
        processes.stop(self.layout, "containerd")
        for pid in self._shims():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove_containers(self) -> None:
        """Kill and remove every container of the node. Its images stay."""
        for container in run(self.ctr("containers", "list", "--quiet")).split():
            succeeds(self.ctr("tasks", "delete", "--force", container))  # it may have no task
            succeeds(self.ctr("containers", "delete", container))

    def ctr(self, *words: str) -> list[str]:
        """Return a command line that asks this containerd."""
        return ["ctr", "--address", str(self.socket), "--namespace", NAMESPACE, *words]

    def images(self) -> set[str]:
        """Return the names of the images that pods can use."""
        return set(run(self.ctr("images", "list", "--quiet")).split())

    def configuration(self) -> str:
        """Return containerd's configuration file.

        `restrict_oom_score_adj`: without it no sandbox starts where we lack CAP_SYS_RESOURCE.
        """
        runtimes = 'plugins."io.containerd.grpc.v1.cri".containerd'
        return f"""version = 2
root = "{self.root}"
state = "{self.state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{self.socket}"
[ttrpc]
address = "{self.socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{self.state}/opt"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
sandbox_image = "{PAUSE_IMAGE}"
stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{self.registries}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{network.CNI_PLUGINS}"
conf_dir = "{self.layout.config}/cni"
[{runtimes}]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[{runtimes}.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{runtimes}.runtimes.runc.options]
SystemdCgroup = false
Root = "{self.state}/runc"
"""

    def _shims(self) -> list[int]:
        """Return the processes that hold containers of this containerd: they outlive it on purpose."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "containerd-shim" in words[0] and str(self.socket) in words:
                    found.append(int(entry.name))
        return found
