"""The operator as a process of its own, with the rights that the chart gives it and no others."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.request import urlopen

import yaml

from dev.cluster.kubeconfig import kubeconfig, write_private
from tests.apiserver.api import Api, Object, eventually

ROOT = Path(__file__).parents[2]
NAMESPACE = "rerank-system"
MASTER = "5a" * 32
GATEWAY_URL = "http://rerank-gateway.rerank-system/v1/rerank"

_PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts/{name}",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{name}",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/{name}",
}


def install_rights(api: Api, account: str = "rerank-operator") -> str:
    """Apply a ServiceAccount of the plain install and its RBAC; returns a token for it."""
    api.apply(
        f"/api/v1/namespaces/{NAMESPACE}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    )
    for body in yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()):
        if body["kind"] in _PATHS and body["metadata"]["name"].startswith(account):
            metadata = body["metadata"]
            path = _PATHS[body["kind"]].format(
                namespace=metadata.get("namespace", NAMESPACE), name=metadata["name"]
            )
            api.apply(path, body)
    return token_of(api, NAMESPACE, account)


def token_of(api: Api, namespace: str, account: str) -> str:
    """A token of a ServiceAccount, as its pods have one."""
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 7200},
    }
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    token = api.create(path, request)["status"]["token"]
    assert isinstance(token, str)
    return token


class Process(Protocol):
    """What is needed of a process: as subprocess.Popen has it."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...


Launch = Callable[[Mapping[str, str], list[str], Path], Process]
"""Starts the program with an environment, arguments and a file for its log."""


def launch(environment: Mapping[str, str], arguments: list[str], log: Path) -> Process:
    """Start the program as a kubelet does."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "rerank_operator", *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@dataclass
class Operator:
    """Start, stop and kill the operator. One process at a time.

    `server` is where it finds the API server, if not where the test does.
    """

    api: Api
    folder: Path
    token: str
    environment: dict[str, str] = field(default_factory=dict)
    server: str | None = None
    launch: Launch = launch
    process: Process | None = None
    port: int = 0
    starts: int = 0
    logs: ClassVar[str] = "operator.log"

    def start(self, *, ready: bool = True) -> "Operator":
        assert self.process is None, "the operator runs already"
        self.folder.mkdir(exist_ok=True)
        master = self.folder / "master"
        if "RERANK_BACKEND_TOKEN_FILE" not in self.environment:
            master.write_text(MASTER + "\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.starts += 1
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'api'}:{ROOT / 'operator'}",
            "KUBECONFIG": str(self._kubeconfig()),
            "RERANK_NAMESPACE": NAMESPACE,
            "RERANK_POD_NAME": f"rerank-operator-{self.starts}",
            "RERANK_RUNTIME_IMAGE_CPU": "rerank-runtime:test-cpu",
            "RERANK_RUNTIME_IMAGE_CUDA": "rerank-runtime:test-cuda",
            "RERANK_GATEWAY_URL": GATEWAY_URL,
            "RERANK_BACKEND_TOKEN_FILE": str(master),
            **self.environment,
        }
        self.process = self.launch(environment, [f"--port={self.port}"], self.folder / self.logs)
        if ready:
            eventually("the operator leads", self.leads)
        return self

    def stop(self) -> None:
        """Ask it to end, as the kubelet does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal and leave the process to it."""
        assert self.process is not None, "the operator does not run"
        self.process.send_signal(number)

    def log(self) -> str:
        return (self.folder / self.logs).read_text()

    def metric(self, name: str, label: str = "") -> float:
        """The sum over all labels, or over those with this one, as `kind="APIKey"`."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name and label in line
        )

    def leads(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the operator ended: {self.log()[-4000:]}"
        try:
            return self.metric("rerank_operator_leading") == 1
        except OSError:
            return False

    def _end(self, number: signal.Signals) -> None:
        self.send(number)
        assert self.process is not None
        self.process.wait(timeout=40)
        self.process = None

    def _kubeconfig(self) -> Path:
        access = self.api.access
        file = self.folder / "kubeconfig"
        write_private(file, kubeconfig(self.server or access.url, access.authority, self.token))
        return file


@dataclass(frozen=True)
class AuditLog:
    """What the operator, or another account, asked of the API server."""

    file: Path
    user: str = f"system:serviceaccount:{NAMESPACE}:rerank-operator"

    def requests(self, *, since: int = 0) -> list[Object]:
        """Its requests after the first `since` bytes of the log, watches as soon as they began."""
        with self.file.open("rb") as log:
            log.seek(since)
            events = [json.loads(line) for line in log if line.endswith(b"\n")]
        return [
            event
            for event in events
            if event["user"]["username"] == self.user
            and event["stage"] in {"ResponseStarted", "ResponseComplete"}
        ]

    def writes(self, *, since: int = 0) -> list[str]:
        """Its writes that were carried out, but for the Lease's, as "verb path". A dry run writes nothing.

        Namespaces of earlier tests refuse writes while they are being deleted.
        """
        return [
            f"{event['verb']} {event['requestURI']}"
            for event in self.requests(since=since)
            if event["verb"] not in {"get", "list", "watch"}
            and event["objectRef"]["resource"] != "leases"
            and "dryRun=" not in event["requestURI"]
            and event["responseStatus"]["code"] < 400
        ]

    def size(self) -> int:
        return self.file.stat().st_size
