"""Reading the API server often: through one `kubectl proxy`, where each kubectl would cost 100 ms."""

import http.client
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.cluster.harness.http import Address, Answer, send
from tests.cluster.harness.kubectl import Shell

_ROOTS = {
    "configmaps": "/api/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
    "events": "/api/v1",
    "namespaces": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "pods": "/api/v1",
    "secrets": "/api/v1",
    "services": "/api/v1",
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
    "modeldeployments": "/apis/rerank.dev/v1alpha1",
    "apikeys": "/apis/rerank.dev/v1alpha1",
    "clusterroles": "/apis/rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
}


@dataclass(frozen=True)
class Api:
    """The API server's objects as plain dicts."""

    proxy: Address

    def get(self, resource: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return one object, or None where there is none."""
        answer = self._ask(f"{_path(resource, namespace)}/{name}")
        if answer.status == 404:
            return None
        return _object(answer)

    def list(self, resource: str, namespace: str | None = None, *, labels: str = "") -> list[dict[str, Any]]:
        """Return the objects of one kind, of all namespaces where none is named."""
        query = f"?labelSelector={quote(labels)}" if labels else ""
        answer = self._ask(_path(resource, namespace) + query)
        if answer.status == 404:  # its CRD is not there
            return []
        items: list[dict[str, Any]] = _object(answer)["items"]
        return items

    def _ask(self, path: str) -> Answer:
        try:
            return send(self.proxy, "GET", path, seconds=10)
        except (OSError, http.client.HTTPException) as error:
            raise AssertionError(f"kubectl proxy did not answer {path}: {error}") from error


@contextmanager
def proxied(shell: Shell) -> Iterator[Api]:
    """Run `kubectl proxy` on a free port of loopback for as long as the block lasts."""
    process = subprocess.Popen(
        ["kubectl", "proxy", "--port=0", "--address=127.0.0.1"],
        env=dict(shell.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            readable, _, _ = select.select([process.stdout], [], [], 30)
            line = process.stdout.readline() if readable else ""
            assert "127.0.0.1:" in line, f"kubectl proxy did not start: {line!r}"
            yield Api(Address("127.0.0.1", int(line.rsplit(":", 1)[1])))
        finally:
            process.terminate()


def _path(resource: str, namespace: str | None) -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{_ROOTS[resource]}{scope}/{resource}"


def _object(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, str(answer)
    found: dict[str, Any] = answer.json()
    return found
