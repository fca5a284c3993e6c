"""The node: kubelet, kube-proxy and the cluster's DNS, on the host beside containerd."""

import json
import socket
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from dev.cluster import network, processes
from dev.cluster.certificates import Subject
from dev.cluster.commands import run
from dev.cluster.containerd import Containerd
from dev.cluster.control_plane import FIRST_SERVICE, ControlPlane
from dev.cluster.errors import ClusterError
from dev.cluster.kubeconfig import write_private
from dev.cluster.processes import Component
from dev.cluster.progress import say
from dev.cluster.waiting import wait_until

NAME = "rerank-node"
PARTS = ("kubelet", "kube-proxy", "coredns")
DOMAIN = "cluster.local"
DNS_READY_PORT = 8181
READY_SECONDS = 120.0

DNS_ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "system:coredns"},
    "rules": [
        {
            "apiGroups": [""],
            "resources": ["services", "pods", "namespaces"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ],
}
DNS_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "system:coredns"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
}


@dataclass(frozen=True)
class Node:
    """The one node of a cluster."""

    plane: ControlPlane
    containerd: Containerd

    @property
    def kubelet_root(self) -> Path:
        return self.plane.layout.root / "kubelet"

    def start(self) -> None:
        """Start what does not run yet and return when the node is Ready and DNS answers."""
        layout = self.plane.layout
        for client, group in ((f"system:node:{NAME}", "system:nodes"), ("system:kube-proxy", "")):
            self._write_kubeconfig(client, group)
        self._write_kubeconfig("system:coredns", "")
        items = {"apiVersion": "v1", "kind": "List", "items": [DNS_ROLE, DNS_BINDING]}
        started = [
            processes.ensure(layout, self._kubelet()),
            processes.ensure(layout, self._kube_proxy(), before=network.forget_services),
            processes.ensure(layout, self._coredns()),
        ]
        if any(started):
            say("node", "starting")
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(items))
        wait_until("node to be Ready", self._ready, seconds=READY_SECONDS, every=0.3)
        wait_until("DNS to answer", self._dns_ready, seconds=READY_SECONDS)
        wait_until("Services to be reachable", _services_work, seconds=READY_SECONDS)
        if any(started):
            say("node", f"{NAME} is Ready")

    def stop(self) -> None:
        """Stop its processes. Idempotent."""
        for part in PARTS:
            processes.stop(self.plane.layout, part)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return what it prints."""
        program = f"{self.plane.programs}/kubectl"
        return run([program, f"--kubeconfig={self.plane.layout.kubeconfig}", *words], stdin=stdin)

    def _ready(self) -> bool:
        for part in PARTS:
            processes.require(self.plane.layout, part)
        condition = "{.status.conditions[?(@.type=='Ready')].status}"
        try:
            answer = self.kubectl("get", "node", NAME, "-o", f"jsonpath={condition}")
        except ClusterError:
            return False  # not registered yet
        return answer == "True"

    def _dns_ready(self) -> bool:
        processes.require(self.plane.layout, "coredns")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{DNS_READY_PORT}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:  # not listening yet, or 503 until its first lists are in
            return False

    def _write_kubeconfig(self, client: str, group: str) -> None:
        name = client.replace(":", "-")
        pair = self.plane.authority.issue(name, Subject(client, group))
        write_private(self.plane.layout.config / f"{name}.kubeconfig", self.plane.kubeconfig_of(pair))

    def _kubeconfig(self, client: str) -> str:
        return str(self.plane.layout.config / f"{client.replace(':', '-')}.kubeconfig")

    def _kubelet(self) -> Component:
        addresses = (f"DNS:{NAME}", f"IP:{network.ADDRESS}", "IP:127.0.0.1")
        serving = self.plane.authority.issue("kubelet-serving", Subject(NAME, addresses=addresses))
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": network.ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.plane.authority.pair.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "containerRuntimeEndpoint": f"unix://{self.containerd.socket}",
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "clusterDNS": [network.ADDRESS],
            "clusterDomain": DOMAIN,
            "makeIPTablesUtilChains": False,  # kube-proxy's nftables mode needs none of them
            "imageGCHighThresholdPercent": 100,  # an image that is collected cannot be pulled again
            "imageMinimumGCAge": "24h",
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            "podLogsDir": str(self.plane.layout.root / "pod-logs"),
            "volumePluginDir": str(self.kubelet_root / "volume-plugins"),
            "registerNode": True,
            "serializeImagePulls": False,
        }
        path = self.plane.layout.config / "kubelet.json"
        path.write_text(json.dumps(config, indent=1))
        flags = {
            "config": str(path),
            "kubeconfig": self._kubeconfig(f"system:node:{NAME}"),
            "root-dir": str(self.kubelet_root),
            "hostname-override": NAME,
            "node-ip": network.ADDRESS,
        }
        return self._component("kubelet", flags, path.read_text())

    def _kube_proxy(self) -> Component:
        flags = {
            "kubeconfig": self._kubeconfig("system:kube-proxy"),
            "hostname-override": NAME,
            "proxy-mode": "nftables",
            "cluster-cidr": network.POD_RANGE,
            "conntrack-max-per-core": "0",  # the kernel's own limits: we may not be allowed to set them
            "conntrack-min": "0",
            "metrics-bind-address": "127.0.0.1:10249",
            "healthz-bind-address": "127.0.0.1:10256",
        }
        return self._component("kube-proxy", flags)

    def _component(self, name: str, flags: dict[str, str], configuration: str = "") -> Component:
        words = (f"--{flag}={value}" for flag, value in flags.items())
        return Component(name, (f"{self.plane.programs}/{name}", *words), configuration=configuration)

    def _coredns(self) -> Component:
        path = self.plane.layout.config / "Corefile"
        resolvers = Path("/etc/resolv.conf").read_text()
        path.write_text(corefile(self._kubeconfig("system:coredns"), resolvers))
        arguments = (f"{self.plane.programs}/coredns", "-conf", str(path))
        return Component("coredns", arguments, configuration=path.read_text())


def _services_work() -> bool:
    """Whether kube-proxy leads to the API server by its Service's address, which every pod uses."""
    try:
        socket.create_connection((FIRST_SERVICE, 443), timeout=2).close()
    except OSError:
        return False
    return True


def corefile(kubeconfig: str, resolvers: str) -> str:
    """Return CoreDNS's configuration.

    Args:
        kubeconfig: path of its kubeconfig.
        resolvers: the host's resolv.conf; names outside the cluster are asked there, if it names any.
    """
    outside = any(line.split()[:1] == ["nameserver"] for line in resolvers.splitlines())
    lines = [
        ".:53 {",
        f"    bind {network.ADDRESS}",
        "    errors",
        f"    ready 127.0.0.1:{DNS_READY_PORT}",
        f"    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{",
        f"        kubeconfig {kubeconfig}",
        "        fallthrough in-addr.arpa ip6.arpa",
        "    }",
    ]
    if outside:
        lines.append("    forward . /etc/resolv.conf")
    return "\n".join([*lines, "}"]) + "\n"
