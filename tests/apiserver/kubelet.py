"""Plays the kubelet: nodes that the real scheduler sees, and what containers do on them."""

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from typing import Any

from tests.apiserver.api import Api, Object, Refused, eventually

_numbers = itertools.count()


def _address() -> str:
    """One of 127.0.0.0/8 for a pod, which no other process takes: tests run in several.

    The 500 of a process come round again. Its earlier pods have gone by then.
    """
    return str(IPv4Address("127.0.0.0") + os.getpid() % 2**15 * 2**9 + next(_numbers) % 500)


@contextmanager
def node(api: Api, name: str, *, labels: dict[str, str] | None = None, **capacity: str) -> Iterator[str]:
    """A node with room for everything, plus `capacity`. The real scheduler binds pods to it."""
    room = {"cpu": "64", "memory": "512Gi", "pods": "500", "ephemeral-storage": "1Ti", **capacity}
    api.create(
        "/api/v1/nodes",
        {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}},
    )
    offer(api, name, room)
    # Admission taints every new node until its kubelet reports; this one has none.
    eventually(
        "the node is not tainted", lambda: api.merge(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
    )
    try:
        yield name
    finally:
        api.delete(f"/api/v1/nodes/{name}")


def offer(api: Api, name: str, capacity: dict[str, str]) -> None:
    """Set what a node offers, and that it is ready."""
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played"}
    status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
    api.merge(f"/api/v1/nodes/{name}/status", {"status": status})


@dataclass
class Runtime:
    """A pod's status port, and the pod's status as its kubelet would report it."""

    api: Api
    namespace: str
    pod: str
    address: str = field(default_factory=_address)
    report: Any = None
    _server: ThreadingHTTPServer | None = None

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}"

    def serve(self, report: Any) -> "Runtime":
        """Answer `GET /status` with `report` from now on."""
        self.report = report
        if self._server is None:
            self._server = ThreadingHTTPServer((self.address, 8081), self._handler())
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def set(self, *, fetch: Object | None = None, serve: Object | None = None, ready: bool = False) -> None:
        """Report the two containers' states, each as it stands in a containerStatus."""
        waiting = {"state": {"waiting": {"reason": "PodInitializing"}}}
        body = self.api.get(self.path)
        word = "True" if ready else "False"
        kept = [c for c in body["status"].get("conditions", []) if c["type"] == "PodScheduled"]
        status: Object = {
            "phase": "Running" if serve else "Pending",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [
                *kept,
                {"type": "Ready", "status": word},
                {"type": "ContainersReady", "status": word},
            ],
            "containerStatuses": [_container("serve", serve or waiting, ready=ready)],
        }
        if body["spec"].get("initContainers"):
            status["initContainerStatuses"] = [_container("fetch", fetch or waiting, ready=False)]
        self.api.merge(f"{self.path}/status", {"status": status})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = (
                    runtime.report
                    if isinstance(runtime.report, bytes)
                    else json.dumps(runtime.report).encode()
                )
                self.send_response(200 if self.path == "/status" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _container(name: str, state: Object, *, ready: bool) -> Object:
    base = {
        "name": name,
        "image": "rerank-runtime:test-cpu",
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
    }
    return {**base, **state}


RUNNING: Object = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
DONE: Object = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}


def failed(reason: str, message: str, *, exit_code: int = 1) -> Object:
    """A container that ended with our termination message."""
    text = json.dumps({"reason": reason, "message": message, "retriable": False})
    return {"exitCode": exit_code, "reason": "Error", "message": text}


def ready_report(commit: str, *, repo: str = "demo/word-overlap") -> Object:
    """What a verified replica says."""
    return {
        "phase": "Ready",
        "reason": "",
        "message": "",
        "source": {"repo": repo, "revision": commit},
        "model": {
            "family": "bert",
            "architecture": "BertForSequenceClassification",
            "parameters": 4385281,
            "weightsBytes": 17541124,
            "contextLength": 512,
            "scoring": {"method": "CrossEncoder", "range": "[0,1]"},
        },
        "verification": {"verified": True, "reason": "", "message": "", "cases": []},
        "inFlight": 0,
    }


@dataclass
class Fleet:
    """All pods of a namespace on their nodes. `healthy` says of a pod whether it gets ready there."""

    api: Api
    namespace: str
    commit: str
    healthy: Callable[[Object], bool] = lambda _pod: True
    runtimes: dict[str, Runtime] = field(default_factory=dict)
    fewest_ready: int | None = None

    def pods(self) -> list[Object]:
        """Those that are not being deleted, by name."""
        found = self.api.items(f"/api/v1/namespaces/{self.namespace}/pods")
        return sorted(
            (pod for pod in found if "deletionTimestamp" not in pod["metadata"]),
            key=lambda pod: str(pod["metadata"]["name"]),
        )

    def step(self) -> "Fleet":
        """End what is being deleted, start what was bound to a node; note how many serve."""
        found = self.end().pods()
        ready = sum(map(is_ready, found))
        self.fewest_ready = ready if self.fewest_ready is None else min(self.fewest_ready, ready)
        for pod in found:
            name = pod["metadata"]["name"]
            if pod["spec"].get("nodeName") and name not in self.runtimes:
                self._start(name, healthy=self.healthy(pod))
        return self

    def end(self, *, everything: bool = False) -> "Fleet":
        """End what is being deleted, or everything."""
        for pod in self.api.items(f"/api/v1/namespaces/{self.namespace}/pods"):
            if everything or "deletionTimestamp" in pod["metadata"]:
                path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"
                with suppress(Refused):  # it is gone
                    self.api.request("DELETE", path, {"gracePeriodSeconds": 0})
        return self

    def close(self) -> None:
        for runtime in self.runtimes.values():
            runtime.close()

    def _start(self, name: str, *, healthy: bool) -> None:
        runtime = self.runtimes[name] = Runtime(self.api, self.namespace, name)
        verdict = {"verified": False, "reason": "ScoresInverted", "message": "the bear beat the panda"}
        wrong = {"phase": "Failed", "verification": verdict}
        runtime.serve(ready_report(self.commit) if healthy else wrong)
        runtime.set(fetch=DONE, serve=RUNNING, ready=healthy)


def is_ready(pod: Object) -> bool:
    """Whether its kubelet says that it may get requests."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
