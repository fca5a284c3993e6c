"""One model served as a pod serves it: `rerank-runtime serve` with the plan of its files, a real vLLM on the
CPU, and the gateway before it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import processes, vllm_program
from parity.processes import Process
from rerank_api import keys
from rerank_api.names import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL

ROOT = Path(__file__).resolve().parent.parent
_CREATED = "2026-01-01T00:00:00Z"
_START_SECONDS = 300.0
_VERIFY_SECONDS = 180.0


def pythonpath() -> dict[str, str]:
    """This process's environment, in which Python finds the packages of the repository."""
    path = os.pathsep.join(str(ROOT / name) for name in ("", "api", "gateway", "runtime"))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Refusal:
    """The runtime would not serve, or did not get as far as verifying: why."""

    reason: str
    message: str


@dataclass(frozen=True)
class Served:
    """A model that answers.

    Args:
        plan: What `rerank-runtime plan` prints.
        status: What the pod's `/status` says after verification.
        engine_url: The pod's own address.
        gateway_url: The gateway's, for clients.
        key: What the gateway lets in.
        model: The name that requests use.
        given: The file in which the engine writes down its prompts.
    """

    plan: dict[str, Any]
    status: dict[str, Any]
    engine_url: str
    gateway_url: str
    key: str
    model: str
    given: Path

    def rerank(self, query: str, documents: Sequence[str], **fields: Any) -> processes.Answer:
        """Ask through the gateway."""
        body = {"model": self.model, "query": query, "documents": list(documents)} | fields
        return processes.ask(f"{self.gateway_url}/v1/rerank", body, key=self.key)

    def rerank_pod(self, query: str, documents: Sequence[str], **fields: Any) -> processes.Answer:
        """Ask past the gateway."""
        body = {"model": self.model, "query": query, "documents": list(documents)} | fields
        return processes.ask(f"{self.engine_url}/v1/rerank", body)

    def prompts(self) -> list[list[int]]:
        """Token ids of every prompt that the engine was given until now, in the order in which they came."""
        return [json.loads(line) for line in self.given.read_text(encoding="utf-8").splitlines()]


class Chain:
    """The programs that all models share: the process that forks vLLM, and the gateway.

    Args:
        python: Interpreter of the runtime's environment.
        work: A directory for sockets, logs and the gateway's objects.
    """

    def __init__(self, python: Path, work: Path) -> None:
        self._python = python
        self._work = work
        self._socket = work / "vllm.sock"
        self._objects = work / "objects"
        self._port = 0
        self._minted = keys.mint()
        self._served = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Chain]:
        """Start both, and end them."""
        self._objects.mkdir(parents=True, exist_ok=True)
        self._write_program()
        self._publish("none", 1, 1)
        self._port = processes.free_port()
        internal = processes.free_port()
        gateway: list[str | Path] = [sys.executable, "-m", "rerank_gateway", f"--config-dir={self._objects}"]
        gateway += [f"--port={self._port}", f"--internal-port={internal}"]
        vllm: list[str | Path] = [self._python, "-m", "parity.forked_vllm", self._socket]
        self._socket.unlink(missing_ok=True)
        with (
            self._start(vllm, "vllm.log", _engine_environment()) as engines,
            self._start(gateway, "gateway.log", {"RERANK_DRAIN_SECONDS": "0"}) as front,
        ):
            engines.wait_for(self._socket.exists, "vLLM to fork from", _START_SECONDS)
            ready = f"http://127.0.0.1:{internal}/readyz"
            front.wait_for(lambda: processes.ask(ready).status == 200, "gateway", 30)
            yield self

    def plan(self, model: Path, options: Sequence[str] = ()) -> dict[str, Any] | Refusal:
        """What `rerank-runtime plan` decides."""
        log = self._work / "plan.log"
        command: list[str | Path] = [self._python, "-c", _RUNTIME, "plan", model, *options]
        with self._start(command, log.name, {}) as program:
            end = time.monotonic() + 60
            while program.exit_code is None and time.monotonic() < end:
                time.sleep(0.02)
            lines = log.read_text().splitlines()
            if program.exit_code not in {0, 2} or not lines:
                raise RuntimeError(f"rerank-runtime plan failed:\n{log.read_text()}")
        content: dict[str, Any] = json.loads(lines[-1])
        return content if program.exit_code == 0 else Refusal(content["reason"], content["message"])

    @contextlib.contextmanager
    def serving(
        self,
        family: str,
        model: Path,
        options: Sequence[str] = (),
        changes: Mapping[str, str | None] | None = None,
    ) -> Iterator[Served | Refusal]:
        """Serve a model until the end of the block.

        Args:
            family: Its name; requests call it so with a number behind, which no other model had.
            model: Its directory.
            options: Of `rerank-runtime plan` and `serve`.
            changes: Flags of vLLM that are made wrong, as `vllm_program` does it.
        """
        plan = self.plan(model, options)
        if isinstance(plan, Refusal):
            yield plan
            return
        self._served += 1
        name = f"{family}-{self._served}"
        port, status_port = processes.free_port(), processes.free_port()
        command: list[str | Path] = [self._python, "-c", _RUNTIME, "serve", model, f"--name={name}", *options]
        command += [f"--port={port}", f"--status-port={status_port}"]
        given = self._work / f"prompts-{name}.jsonl"
        given.write_bytes(b"")
        environment = {
            "PATH": f"{self._work / 'bin'}{os.pathsep}{os.environ['PATH']}",
            vllm_program.SOCKET: str(self._socket),
            vllm_program.CHANGES: json.dumps(changes or {}),
            vllm_program.PROMPTS: str(given),
        }
        with self._start(command, f"serve-{family}.log", environment) as pod:
            status = _verified(pod, f"http://127.0.0.1:{status_port}/status")
            if isinstance(status, Refusal):
                yield status
                return
            url = f"http://127.0.0.1:{self._port}"
            self._publish(name, port, plan["context_length"])
            pod.wait_for(lambda: self._known(url, name), f"{name} at the gateway", 30)
            yield Served(plan, status, f"http://127.0.0.1:{port}", url, self._minted.text, name, given)

    def _known(self, url: str, name: str) -> bool:
        models = processes.ask(f"{url}/v1/models", key=self._minted.text)
        return models.status == 200 and [m["id"] for m in models.body["data"] if m["ready"]] == [name]

    def _start(self, command: Sequence[str | Path], log: str, environment: Mapping[str, str]) -> Process:
        return Process(command, self._work / log, pythonpath() | dict(environment), ROOT)

    def _write_program(self) -> None:
        program = self._work / "bin" / "vllm"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{self._python}" -S "{vllm_program.__file__}" "$@"\n')
        program.chmod(0o755)

    def _publish(self, name: str, port: int, length: int) -> None:
        """Write the gateway's objects as the operator would have them in a cluster."""

        def metadata(of: str) -> dict[str, Any]:
            return {
                "name": of,
                "namespace": "default",
                "creationTimestamp": _CREATED,
                "resourceVersion": "1",
            }

        key = {"keyId": self._minted.key_id, "sha256": self._minted.sha256, "notBefore": _CREATED}
        labels = {MODEL_LABEL: name, MANAGED_BY_LABEL: MANAGED_BY}
        conditions = {"ready": True, "serving": True, "terminating": False}
        objects = [
            {
                "apiVersion": "rerank.dev/v1alpha1",
                "kind": "APIKey",
                "metadata": metadata("parity"),
                "spec": {},
                "status": {"keyId": key["keyId"], "hint": self._minted.hint, "hashes": [key]},
            },
            {
                "apiVersion": "rerank.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": metadata(name),
                "spec": {"model": {"persistentVolumeClaim": {"claimName": "weights"}}, "replicas": 1},
                "status": {"model": {"contextLength": length}},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata(f"{name}-x") | {"labels": labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": conditions}],
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            },
        ]
        temporary = self._objects / "objects.tmp"
        temporary.write_text(json.dumps({"items": objects}), encoding="utf-8")
        temporary.rename(self._objects / "objects.json")


# The program without an installed distribution.
_RUNTIME = "from rerank_runtime.cli import main; main()"


def _engine_environment() -> dict[str, str]:
    """What a pod's environment says to vLLM, as far as it is read when it is imported."""
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }


def _verified(pod: Process, url: str) -> dict[str, Any] | Refusal:
    """The status once verification has said something, or why it never came to that."""
    end = time.monotonic() + _VERIFY_SECONDS
    while time.monotonic() < end and pod.exit_code is None:
        status = processes.ask(url).body
        if isinstance(status, dict):
            if status.get("verification"):
                return status
            if status["phase"] == "Failed":
                return Refusal(status["reason"], status["message"])
        time.sleep(0.2)
    errors = [line for line in pod.log.read_text(errors="replace").splitlines() if _ERROR in line]
    if not errors:
        return Refusal("NotStarted", f"nothing was verified within {_VERIFY_SECONDS:.0f} s")
    reason, _, message = errors[-1].partition(_ERROR)[2].partition(": ")
    return Refusal(reason.strip(), message)


_ERROR = "rerank-runtime ERROR"
