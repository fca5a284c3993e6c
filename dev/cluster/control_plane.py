"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler: all that API-server tests need."""

import json
import ssl
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from dev.cluster import processes
from dev.cluster.certificates import Authority, KeyPair, Subject
from dev.cluster.kubeconfig import kubeconfig, write_private
from dev.cluster.paths import Layout
from dev.cluster.processes import Component
from dev.cluster.progress import say
from dev.cluster.waiting import wait_until

PARTS = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
"""In the order in which they are stopped."""

SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
READY_SECONDS = 90.0

# Processor time is scarcer than memory where everything runs on a machine of two cores.
_GOGC = "400"

# Who did what, without bodies: tests count writes and find unused permissions in it.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class Ports:
    """The TCP ports of a control plane."""

    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int


@dataclass(frozen=True)
class ControlPlane:
    """One control plane: where its files are, where its programs are, where it listens."""

    layout: Layout
    programs: str
    """Folder of the programs."""
    address: str
    """The address that the API server binds and that its clients use."""
    ports: Ports
    nodes: bool
    """Whether nodes join: without them the API server publishes no endpoint for itself."""
    dies_with_parent: bool = False
    """Whether the kernel ends the processes with the one that started them, as a test session wants."""
    feature_gates: str = ""
    """Of the API server, as in `ImageVolume=true`, where they are not the default."""

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.ports.apiserver}"

    @property
    def authority(self) -> Authority:
        return Authority(self.layout.pki)

    @property
    def administrator(self) -> KeyPair:
        return self.authority.issue("admin", Subject("admin", "system:masters"))

    def prepare(self) -> None:
        """Make certificates, kubeconfigs and policies. Idempotent."""
        self.layout.create()
        self.authority.create()
        write_private(self.layout.kubeconfig, self.kubeconfig_of(self.administrator))
        for part in ("kube-controller-manager", "kube-scheduler"):
            client = self.authority.issue(part, Subject(f"system:{part}"))
            write_private(self.layout.config / f"{part}.kubeconfig", self.kubeconfig_of(client))
        (self.layout.config / "audit.json").write_text(json.dumps(AUDIT_POLICY))

    def kubeconfig_of(self, client: KeyPair) -> str:
        """Return a kubeconfig for somebody with a certificate of this cluster."""
        return kubeconfig(self.url, self.authority.pair.certificate, client)

    def start(self) -> None:
        """Start what does not run yet and return when all of it is ready."""
        self.prepare()
        started = [processes.ensure(self.layout, part) for part in self._servers()]
        if any(started):
            say("control plane", "starting")
        up = Answers(self, "/readyz", parts=[part.name for part in self._servers()])
        wait_until("API server to be ready", up, seconds=READY_SECONDS)
        # Only then: a controller manager ends when the API server is not healthy 20 s after its start.
        started += [processes.ensure(self.layout, part) for part in self._controllers()]
        # Pods cannot be created before the controller manager has made the namespace's account.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until("default service account", Answers(self, account), seconds=READY_SECONDS)
        if any(started):
            say("control plane", f"ready at {self.url}")

    def stop(self) -> None:
        """Stop every part. Idempotent."""
        for part in PARTS:
            processes.stop(self.layout, part)

    def _servers(self) -> list[Component]:
        return [self._etcd(), self._apiserver()]

    def _controllers(self) -> list[Component]:
        return [self._controller_manager(), self._scheduler()]

    def _component(self, name: str, flags: dict[str, str]) -> Component:
        arguments = [f"{self.programs}/{name}", *(f"--{flag}={value}" for flag, value in flags.items())]
        prefix = ("setpriv", "--pdeathsig", "KILL") if self.dies_with_parent else ()
        return Component(name, (*prefix, *arguments), environment={"GOGC": _GOGC})

    def _etcd(self) -> Component:
        client = f"http://127.0.0.1:{self.ports.etcd}"
        peer = f"http://127.0.0.1:{self.ports.etcd_peer}"
        flags = {
            "name": "default",
            "data-dir": str(self.layout.etcd),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",  # a development cluster may lose its last second in a power cut
            "log-level": "warn",
        }
        return self._component("etcd", flags)

    def _apiserver(self) -> Component:
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
        addresses = [f"DNS:{name}" for name in (*names, "kubernetes.default.svc.cluster.local")]
        addresses += [f"IP:{ip}" for ip in dict.fromkeys((self.address, "127.0.0.1", FIRST_SERVICE))]
        serving = self.authority.issue("apiserver", Subject("kube-apiserver", addresses=tuple(addresses)))
        to_kubelet = self.authority.issue("apiserver-kubelet", Subject("kube-apiserver", "system:masters"))
        accounts = self.authority.signing_key("service-accounts")
        authority = str(self.authority.pair.certificate)
        flags = {
            "advertise-address": self.address,
            "bind-address": self.address,
            "secure-port": str(self.ports.apiserver),
            "endpoint-reconciler-type": "master-count" if self.nodes else "none",
            "etcd-servers": f"http://127.0.0.1:{self.ports.etcd}",
            "service-cluster-ip-range": SERVICE_RANGE,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "client-ca-file": authority,
            "tls-cert-file": str(serving.certificate),
            "tls-private-key-file": str(serving.key),
            "kubelet-certificate-authority": authority,
            "kubelet-client-certificate": str(to_kubelet.certificate),
            "kubelet-client-key": str(to_kubelet.key),
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": str(accounts.certificate),
            "service-account-signing-key-file": str(accounts.key),
            "audit-policy-file": str(self.layout.config / "audit.json"),
            "audit-log-path": str(self.layout.audit_log),
            "audit-log-maxsize": "2000",  # MB before it is rotated: tests read one file
        }
        if self.feature_gates:
            flags["feature-gates"] = self.feature_gates
        return self._component("kube-apiserver", flags)

    def _controller_manager(self) -> Component:
        flags = {
            "kubeconfig": str(self.layout.config / "kube-controller-manager.kubeconfig"),
            "bind-address": "127.0.0.1",
            "secure-port": str(self.ports.controller_manager),
            "root-ca-file": str(self.authority.pair.certificate),
            "service-account-private-key-file": str(self.authority.signing_key("service-accounts").key),
            "use-service-account-credentials": "true",
            "leader-elect": "false",
        }
        if not self.nodes:
            # Where tests play the nodes nobody tells that they live, and pods would turn unready after 50 s.
            flags["node-monitor-grace-period"] = "1h"
        return self._component("kube-controller-manager", flags)

    def _scheduler(self) -> Component:
        flags = {
            "kubeconfig": str(self.layout.config / "kube-scheduler.kubeconfig"),
            "bind-address": "127.0.0.1",
            "secure-port": str(self.ports.scheduler),
            "leader-elect": "false",
        }
        return self._component("kube-scheduler", flags)


@dataclass(frozen=True)
class Answers:
    """The condition that the API server answers 200 on a path, while the parts of its control plane live."""

    plane: ControlPlane
    path: str
    parts: Sequence[str] = PARTS

    def __call__(self) -> bool:
        for part in self.parts:
            processes.require(self.plane.layout, part)
        context = ssl.create_default_context(cafile=str(self.plane.authority.pair.certificate))
        client = self.plane.administrator
        context.load_cert_chain(client.certificate, client.key)
        try:
            with urllib.request.urlopen(self.plane.url + self.path, context=context, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:  # includes URLError and HTTPError: not up yet, or not ready yet
            return False
