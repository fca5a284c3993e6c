"""Everything that a test holds: the ways into the cluster, and the story to tell when a wait fails."""

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.cluster.access import Access
from rerank_api import names
from tests.cluster.harness.api import Api
from tests.cluster.harness.audit import AuditLog
from tests.cluster.harness.kubectl import CommandFailedError, Kubectl, Shell
from tests.cluster.harness.objects import Object, condition, is_true, pod_is_ready
from tests.cluster.harness.waiting import wait_for

SYSTEM = "rerank-system"
# From apply to the first right answer of vLLM on two busy cores, with others starting beside it.
START_SECONDS = 420.0
_TAIL = 25


@dataclass(frozen=True)
class Cluster:
    """One cluster with its administrator's means."""

    shell: Shell
    api: Api
    audit: AuditLog
    kubectl: Kubectl = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kubectl", Kubectl(self.shell))

    def model(self, name: str, namespace: str) -> Object | None:
        """The ModelDeployment as it is now."""
        return self.api.get("modeldeployments", name, namespace)

    def pods_of(self, name: str, namespace: str) -> list[Object]:
        """The pods of a model, those on their way out included."""
        return self.api.list("pods", namespace, labels=f"{names.MODEL_LABEL}={name}")

    def ready_pods_of(self, name: str, namespace: str) -> list[Object]:
        """The pods of a model that serve."""
        return [pod for pod in self.pods_of(name, namespace) if pod_is_ready(pod)]

    def ready_endpoints_of(self, name: str, namespace: str) -> set[str]:
        """The addresses that the model's Service sends requests to."""
        slices = self.api.list("endpointslices", namespace, labels=f"{names.MODEL_LABEL}={name}")
        return {
            address
            for each in slices
            for endpoint in each.get("endpoints") or []
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        }

    def wait_ready(self, name: str, namespace: str, *, seconds: float = START_SECONDS) -> Object:
        """Wait until a model is Ready with its newest spec, and return it."""

        def ready() -> Object | None:
            found = self.model(name, namespace)
            return found if is_true(found, "Ready") else None

        what = f"ModelDeployment {namespace}/{name} is Ready"
        return wait_for(what, ready, seconds=seconds, story=self.story(namespace))

    def wait_reason(self, name: str, namespace: str, reason: str, *, seconds: float) -> dict[str, str]:
        """Wait until a model is not Ready for that reason, and return the condition."""

        def refused() -> dict[str, str] | None:
            state = condition(self.model(name, namespace), "Ready")
            return state if (state.get("status"), state.get("reason")) == ("False", reason) else None

        what = f"ModelDeployment {namespace}/{name} is not Ready with reason {reason}"
        return wait_for(what, refused, seconds=seconds, story=self.story(namespace))

    def key_of(self, name: str, namespace: str, *, seconds: float = 30) -> str:
        """Wait for the Secret of an APIKey and return the key in it."""

        def written() -> str | None:
            found = self.api.get("secrets", name, namespace)
            return base64.b64decode(found["data"]["key"]).decode() if found else None

        what = f"Secret {namespace}/{name} holds a key"
        return wait_for(what, written, seconds=seconds, every=0.05, story=self.story(namespace))

    def wait_key_ready(self, name: str, namespace: str, *, secret: str | None = None) -> str:
        """Wait until an APIKey is Ready and return the key, which is in a Secret of its name unless said."""
        what = f"APIKey {namespace}/{name} is Ready"
        wait_for(
            what,
            lambda: is_true(self.api.get("apikeys", name, namespace), "Ready"),
            seconds=30,
            every=0.1,
            story=self.story(namespace),
        )
        return self.key_of(secret or name, namespace)

    def story(self, *namespaces: str) -> Callable[[], str]:
        """What to print when a wait fails: objects, events and logs there, and the operator's log."""

        def tell() -> str:
            parts = [self._tell(namespace) for namespace in namespaces]
            logs = ("logs", f"--namespace={SYSTEM}", "--selector=app.kubernetes.io/name=rerank-operator")
            return "\n".join([*parts, self._try(*logs, "--tail=40")])

        return tell

    def _tell(self, namespace: str) -> str:
        scope = f"--namespace={namespace}"
        parts = [
            self._try("get", "modeldeployments,apikeys,deployments,services,pods", scope, "--output=wide"),
            self._try(
                "get", "modeldeployments", scope, '--output=jsonpath={range .items[*]}{.status}{"\\n"}{end}'
            ),
            self._try("get", "events", scope, "--sort-by=.lastTimestamp")[-6000:],
        ]
        for pod in self.api.list("pods", namespace):
            if not pod_is_ready(pod):
                name = pod["metadata"]["name"]
                logs = self._try("logs", name, scope, "--all-containers", f"--tail={_TAIL}", "--prefix")
                parts.append(logs[-6000:])
        return "\n".join(parts)

    def _try(self, *words: str) -> str:
        try:
            return f"$ kubectl {' '.join(words)}\n{self.kubectl(*words, seconds=30)}"
        except CommandFailedError as error:
            return str(error)


def cluster_of(access: Access, api: Api, shell: Shell) -> Cluster:
    """The cluster behind the `node` fixture."""
    return Cluster(shell=shell, api=api, audit=AuditLog(access.audit_log))


def shell_of(access: Access) -> Shell:
    """An environment in which kubectl and helm find the cluster."""
    path = f"{access.programs}:{os.environ.get('PATH', '')}"
    return Shell({**os.environ, "KUBECONFIG": str(access.kubeconfig), "PATH": path})


def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).resolve().parents[3]


def events_about(cluster: Cluster, kind: str, name: str, namespace: str) -> list[dict[str, Any]]:
    """The events of the object that has this name now, oldest first. An earlier one's outlive it."""
    resources = {"ModelDeployment": "modeldeployments", "APIKey": "apikeys"}
    found = cluster.api.get(resources[kind], name, namespace)
    uid = found["metadata"]["uid"] if found else ""
    events = [e for e in cluster.api.list("events", namespace) if e["involvedObject"].get("uid") == uid]
    return sorted(events, key=lambda event: event["eventTime"])
