"""An operator that sees one namespace and has its Lease, and all else that is the installation's, to itself.

So many of them live side by side on one API server, each behind a proxy of its own.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from tests.apiserver.api import Api, Object, Refused, eventually
from tests.apiserver.fault_proxy import FaultProxy
from tests.apiserver.fork_server import ForkServer
from tests.apiserver.operator_process import NAMESPACE, ROOT, Operator


@dataclass(frozen=True)
class Ground:
    """What lone operators share: the API server with a node, an account, and who starts them."""

    api: Api
    folder: Path
    token: str
    forks: ForkServer


class LoneOperator:
    """See the module. `name` is that of its namespace."""

    def __init__(self, ground: Ground, name: str, environment: Mapping[str, str]) -> None:
        self.api = ground.api
        self.name = name
        self.system = f"{name}-system"
        self.folder = ground.folder / name
        self.folder.mkdir(parents=True)
        self.proxy = FaultProxy(ground.api.access)
        own = {"RERANK_NAMESPACE": self.system, "RERANK_WATCH_NAMESPACES": name, **environment}
        self.operator = Operator(ground.api, self.folder, ground.token, own, launch=ground.forks.launch)

    def prepare(self) -> None:
        """Make the namespaces."""
        for namespace in (self.name, self.system):
            self.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        for namespace in (self.name, self.system):
            account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
            eventually("the namespace has its account", partial(self.api.find, account))
        for body in _rights_in(self.system):
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.system}/{body['kind'].lower()}s"
            self.api.apply(f"{path}/{body['metadata']['name']}", body)

    def start(self) -> None:
        """Start the operator."""
        self.proxy.__enter__()
        self.operator.server = self.proxy.url
        self.operator.start(ready=False)

    def start_again(self) -> None:
        """Start another one in place of one that ended."""
        self.operator.process = None
        # A killed leader leaves its Lease behind. Waiting for it to run out is another test's subject.
        with suppress(Refused):  # it did not come to that
            self.api.delete(f"/apis/coordination.k8s.io/v1/namespaces/{self.system}/leases/rerank-operator")
        self.operator.start(ready=False)

    def close(self) -> None:
        """End the operator and remove the namespaces. What it made goes with that."""
        if self.operator.process is not None:
            self.operator.kill()
        self.proxy.__exit__(None, None, None)
        for namespace in (self.name, self.system):
            with suppress(Refused):
                self.api.delete(f"/api/v1/namespaces/{namespace}")


def _rights_in(namespace: str) -> Iterator[Object]:
    """What the chart grants in the operator's own namespace, granted in this one to the same account."""
    for body in yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()):
        if body["kind"] in {"Role", "RoleBinding"} and body["metadata"]["name"] == "rerank-operator-self":
            assert body["metadata"]["namespace"] == NAMESPACE
            body["metadata"]["namespace"] = namespace
            yield body
