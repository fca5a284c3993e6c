"""Specs change while the way to the API server fails: what the operator does meanwhile, and afterwards."""

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from rerank_api import keys
from tests.apiserver.api import RERANK, Object, eventually
from tests.apiserver.crash_state import accepted
from tests.apiserver.fault_proxy import Asked, Fault
from tests.apiserver.faults import Frozen
from tests.apiserver.lone_operator import Ground, LoneOperator
from tests.apiserver.models import apply_model, child_path, model_path

CONVERGE_SECONDS = 30.0
# Two models, a key and a new model are some twenty.
MOST_WRITES = 40
# Watches that are refused are tried again, each by itself.
MOST_REQUESTS_A_SECOND = 60.0


@dataclass(frozen=True)
class Past:
    """What reads are answered from.

    Attributes:
        empty: from before the operator had made anything, else from before the last change.
        specs_only: all that is not of our API is read as it is now.
        restart: whether the operator is killed, and the next one knows nothing else.
    """

    empty: bool = False
    specs_only: bool = False
    restart: bool = False


PAST: Final[Mapping[str, Past]] = {
    "read from before anything was made": Past(empty=True),
    "read from before anything was made, by a new operator": Past(empty=True, restart=True),
    "read from before the last change": Past(),
    "read from before the last change, by a new operator": Past(restart=True),
    "old specs beside new children": Past(specs_only=True),
    "old specs beside new children, by a new operator": Past(specs_only=True, restart=True),
    "specs without a status beside new children": Past(empty=True, specs_only=True, restart=True),
}
"""How `FaultWorld.play_back` reads the past."""

_LATEST_SECONDS = 90.0


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        wrong: what must not have happened.
        seconds: from the end of the fault until all was as the specs want it.
        asked: requests in each second of the fault.
        written: writes that were carried out, from the beginning of the fault on.
    """

    wrong: list[str]
    seconds: float
    asked: float
    written: int


class FaultWorld:
    """A model that grows, one that changes, one that is new, and a key that is replaced."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.api = ground.api
        self.lone = LoneOperator(ground, name, {})

    def play(self, fault: Fault, *, seconds: float) -> Outcome:
        """Have it fail for so long."""
        self.lone.prepare()
        self.lone.start()
        try:
            self._begin()
            return self._meanwhile(fault, seconds, self._change)
        finally:
            self.lone.close()

    def play_back(self, past: Past, *, seconds: float) -> Outcome:
        """Have it read for so long what was there earlier."""
        self.lone.prepare()
        self._apply_first()
        only = RERANK if past.specs_only else "/api"
        nothing_yet = Frozen(self.api, only=only)
        self.lone.start()
        try:
            self._begin()
            earlier = nothing_yet if past.empty else Frozen(self.api, only=only)
            self._change()
            wrong = self._converged()
            assert wrong == []

            def also() -> None:
                self._lose_a_child()
                if past.restart:
                    self.lone.operator.kill()
                    self.lone.start_again()
                    self._has_looked()

            return self._meanwhile(earlier, seconds, also)
        finally:
            self.lone.close()

    def _has_looked(self) -> None:
        """Return when the operator, which has just begun, has looked at the two models and the key."""

        def looked() -> bool:
            looks = "rerank_operator_reconciles_total"
            with suppress(OSError):  # it does not listen yet
                return (
                    self.lone.operator.metric(looks, 'kind="ModelDeployment"') >= 2
                    and self.lone.operator.metric(looks, 'kind="APIKey"') >= 1
                )
            return False

        eventually("it looks at them", looked)

    def _apply_first(self) -> None:
        self._apply(replicas=2, memory="1Gi", version=1)

    def _apply(self, *, replicas: int, memory: str, version: int) -> None:
        resources = {"gpu": {"count": 0}, "cpu": "100m", "memory": memory}
        apply_model(self.api, self.lone.name, "m", replicas=replicas)
        apply_model(self.api, self.lone.name, "n", resources=resources)
        key = {"apiVersion": "rerank.dev/v1alpha1", "kind": "APIKey", "metadata": {"name": "k"}}
        self.api.apply(self._key_path, {**key, "spec": {"version": version}})

    def _begin(self) -> None:
        self._apply_first()
        eventually("all is there", lambda: not self._missing(replicas=2, memory="1Gi", version=1))

    def _change(self) -> None:
        self._apply(replicas=3, memory="2Gi", version=2)
        apply_model(self.api, self.lone.name, "new")
        self._lose_a_child()

    def _lose_a_child(self) -> None:
        self.api.delete(child_path(self.lone.name, "services"))

    def _meanwhile(self, fault: Fault, seconds: float, change: Callable[[], None]) -> Outcome:
        proxy = self.lone.proxy
        asked, done = len(proxy.asked), len(proxy.done)
        proxy.fault = fault
        change()
        time.sleep(seconds)  # that is how long it lasts
        per_second = (len(proxy.asked) - asked) / seconds
        proxy.fault = Fault()
        ended = time.monotonic()
        wrong = self._converged()
        took = time.monotonic() - ended
        if fault.late_seconds:
            time.sleep(max(0.0, ended + fault.late_seconds - time.monotonic()))
            wrong += [f"after the last request has arrived: {what}" for what in self._converged()]
        written = _carried_out(proxy.done)
        return Outcome(
            wrong=wrong + _undone(written),
            seconds=took,
            asked=per_second,
            written=len(_carried_out(proxy.done[done:])),
        )

    def _converged(self) -> list[str]:
        """Wait for what the last specs want. What is missing at last."""

        def missing() -> list[str]:
            return self._missing(replicas=3, memory="2Gi", version=2, names=("m", "n", "new"))

        with suppress(AssertionError):
            eventually("", lambda: not missing(), seconds=_LATEST_SECONDS, pause=0.2)
        operator = self.lone.operator
        assert operator.process is not None
        ended = operator.process.poll() is not None
        return missing() + ([f"the operator has ended: {operator.log()[-2000:]}"] if ended else [])

    def _missing(
        self, *, replicas: int, memory: str, version: int, names: tuple[str, ...] = ("m", "n")
    ) -> list[str]:
        """What is not as these specs want it: missing, or there without being wanted."""
        found = [
            f"{kind} of {name}"
            for name in names
            for kind in _CHILDREN
            if bool(self._child(name, kind)) is not _is_wanted(name, kind)
        ]
        if not found:
            deployments = {name: self._child(name, "deployments") for name in names}
            found += [] if deployments["m"]["spec"]["replicas"] == replicas else ["replicas of m"]
            found += [] if f'"{memory}"' in json.dumps(deployments["n"]) else ["memory of n"]
        models = [self.api.get(model_path(self.lone.name, name)) for name in names]
        key = self.api.get(self._key_path)
        found += [f"status of {body['metadata']['name']}" for body in (*models, key) if not _is_told(body)]
        if key.get("status", {}).get("version") != version:
            return [*found, "version of k"]
        secret = self.api.find(f"/api/v1/namespaces/{self.lone.name}/secrets/k")
        text = base64.b64decode(secret["data"]["key"]).decode() if secret else ""
        return found if keys.digest(text) == accepted(key)[-1] else [*found, "the key that is accepted"]

    def _child(self, name: str, kind: str) -> Object:
        return self.api.find(child_path(self.lone.name, kind, f"rerank-{name}")) or {}

    @property
    def _key_path(self) -> str:
        return f"{RERANK}/namespaces/{self.lone.name}/apikeys/k"


_CHILDREN = ("configmaps", "services", "poddisruptionbudgets", "networkpolicies", "deployments")


def _is_wanted(name: str, kind: str) -> bool:
    """Whether a model has such a child: of them m alone has several replicas, and so a budget."""
    return kind != "poddisruptionbudgets" or name == "m"


def _is_told(body: Object) -> bool:
    return bool(body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"])


def _carried_out(done: Sequence[tuple[Asked, int]]) -> list[Asked]:
    return [asked for asked, status in done if asked.is_write and status < 300]


def _undone(written: Sequence[Asked]) -> list[str]:
    """What was removed or made smaller. Nobody asked for that."""
    found = [asked.what for asked in written if asked.method == "DELETE"]
    replicas: dict[str, int] = {}
    for asked in written:
        if "/deployments/" in asked.path:
            number = json.loads(asked.body)["spec"]["replicas"]
            if number < replicas.get(asked.path, 0):
                found.append(f"{asked.what}: from {replicas[asked.path]} to {number} replicas")
            replicas[asked.path] = number
    return found
