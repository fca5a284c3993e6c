"""kubectl and helm on the demo's cluster: the only module of the demo that runs programs."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dev.cluster.commands import run
from dev.cluster.errors import ClusterError

FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Cluster:
    """A cluster to run the demo on. `environment` holds what kubectl and helm need: KUBECONFIG and PATH."""

    environment: Mapping[str, str]

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Run kubectl and return what it prints.

        Raises:
            ClusterError: it failed, with what it said.
        """
        return run(["kubectl", *arguments], stdin=stdin, environment=self.environment, seconds=seconds)

    def helm(self, *arguments: str, seconds: float) -> str:
        """Run helm and return what it prints.

        Raises:
            ClusterError: it failed, with what it said.
        """
        return run(["helm", *arguments], environment=self.environment, seconds=seconds)

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object, or a list of several, as `kubectl get -o json` prints it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "--output=json", *arguments))
        return found

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects server-side."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)

    def secret(self, namespace: str, name: str, key: str) -> str:
        """One value of a Secret."""
        data: dict[str, str] = self.get(f"--namespace={namespace}", f"secret/{name}")["data"]
        return base64.b64decode(data[key]).decode()

    @contextmanager
    def forwarded(self, namespace: str, service: str) -> Iterator[str]:
        """The address, on loopback, of a Service's port 80 for as long as the context lasts.

        Raises:
            ClusterError: kubectl could not forward it.
        """
        command = ["kubectl", f"--namespace={namespace}", "port-forward", "--address=127.0.0.1"]
        with subprocess.Popen(
            [*command, f"service/{service}", ":80"],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield f"http://127.0.0.1:{_forwarded_port(process)}"
            finally:
                process.terminate()


def _forwarded_port(process: "subprocess.Popen[str]") -> int:
    """Read the port from what kubectl prints once it listens; it ends its output when it fails."""
    said: list[str] = []
    for line in process.stdout or ():
        if match := FORWARDING.search(line):
            return int(match[1])
        said.append(line)
    raise ClusterError(f"kubectl port-forward: {''.join(said).strip()}")
