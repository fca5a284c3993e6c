"""The leader sleeps at work, again and again: a standby takes over, and the woken one just ends."""

import base64
import json
import random
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dev.cluster import temporary
from dev.cluster.access import Access
from soak.bound import Bound, percentile
from tests.apiserver.api import RERANK, Api, Object, eventually, with_crds
from tests.apiserver.models import apply_model, child_path, model_path
from tests.apiserver.operator_process import NAMESPACE, AuditLog, Operator, install_rights, token_of

_SLEEPS: Final = 20
_TAKEOVER_SECONDS: Final = 20.0
_END_SECONDS: Final = 20.0
_WORK_SECONDS: Final = 120.0
_MODELS: Final = 10
_PLACE: Final = "models"
_CREDENTIAL: Final = "authentication.kubernetes.io/credential-id"


@dataclass
class _Contender:
    """One of the two operators, with a token of its own, by which the audit log tells them apart."""

    operator: Operator
    waits: int = 0

    def writes(self, api: Api, *, since: int) -> list[Object]:
        """Its writes from this byte of the audit log on, carried out or not, but for those of the Lease."""
        payload = self.operator.token.split(".")[1]
        token = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return [
            event
            for event in AuditLog(api.access.audit_log).requests(since=since)
            if event["verb"] not in {"get", "list", "watch"}
            and event["objectRef"]["resource"] != "leases"
            and event["user"]["extra"][_CREDENTIAL] == [f"JTI={token['jti']}"]
        ]

    def stand_by(self) -> None:
        """Start, and wait for the Lease that the other one holds."""
        self.waits += 1
        self.operator.start(ready=False)
        said = "waiting for the lease"
        eventually("it stands by", lambda: self.operator.log().count(said) == self.waits, seconds=60)


@dataclass
class _Tally:
    takeovers: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    not_ended: int = 0
    changes: list[str] = field(default_factory=list)
    idle_writes: int = 0
    refused: int = 0
    idle: int = 0
    wrong: int = 0


def run(length: float) -> list[Bound]:
    """Two operators on a real API server change places."""
    tally, chance = _Tally(), random.Random(7)
    sleeps = max(1, round(_SLEEPS * length))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with temporary.control_plane(folder / "control-plane") as plane:
            api = with_crds(Api(Access.to(plane)))
            install_rights(api)
            api.create("/api/v1/namespaces", {"metadata": {"name": _PLACE}})
            leader, standby = (
                _Contender(Operator(api, folder / name, token_of(api, NAMESPACE, "rerank-operator")))
                for name in ("a", "b")
            )
            try:
                leader.operator.start()
                for _ in range(sleeps):
                    standby.stand_by()
                    _sleep(api, leader, standby, tally, moment=chance.uniform(0, 1))
                    leader, standby = standby, leader
            finally:
                for contender in (leader, standby):
                    if contender.operator.process is not None:
                        contender.operator.kill()
    print(*tally.changes, sep="\n", end="\n" if tally.changes else "")
    return [
        Bound("leaders put to sleep", sleeps),
        Bound("of these, leaders that had not yet written anything", tally.idle, sleeps // 4),
        Bound("takeover, median", percentile(tally.takeovers, 0.5), None, "s"),
        Bound("takeover, longest", max(tally.takeovers), _TAKEOVER_SECONDS, "s"),
        # The Lease cannot hold back what was just being sent. What it was planned from, and carries, can.
        Bound("writes of leaders after they woke that changed something", len(tally.changes), 0),
        Bound("such that were refused, being planned from older state", tally.refused),
        Bound("such that changed nothing", tally.idle_writes),
        Bound("leaders that did not end with code 1 when they woke", tally.not_ended, 0),
        Bound("end after waking, longest", max(tally.ends, default=float("nan")), _END_SECONDS, "s"),
        Bound("resources that were not as wanted in the end", tally.wrong, 0),
    ]


def _sleep(api: Api, leader: _Contender, standby: _Contender, tally: _Tally, *, moment: float) -> None:
    """Put the leader to sleep at its work, and wake it when all that it would still do is outdated."""
    names = [f"m{len(tally.takeovers)}-{each}" for each in range(_MODELS)]
    began = api.access.audit_log.stat().st_size
    _apply(api, names, replicas=1)
    time.sleep(moment)  # it is at work: at another write in each round
    leader.operator.send(signal.SIGSTOP)
    slept = time.monotonic()
    tally.idle += not leader.writes(api, since=began)
    eventually("the standby leads", standby.operator.leads, seconds=3 * _TAKEOVER_SECONDS)
    tally.takeovers.append(time.monotonic() - slept)
    _apply(api, names, replicas=2)
    try:
        eventually("the standby works", lambda: _wrong(api, names) == [], seconds=_WORK_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}: {_wrong(api, names)}; {standby.operator.log()[-8000:]}") from None
    before, mark = _state(api, names), api.access.audit_log.stat().st_size
    leader.operator.send(signal.SIGCONT)
    woke = time.monotonic()
    process = leader.operator.process
    assert process is not None
    try:
        tally.not_ended += process.wait(timeout=_END_SECONDS) != 1
        tally.ends.append(time.monotonic() - woke)
    except subprocess.TimeoutExpired:
        tally.not_ended += 1
        leader.operator.kill()
    leader.operator.process = None
    after = _state(api, names)
    for event in leader.writes(api, since=mark):
        code, path = (
            event["responseStatus"]["code"],
            event["requestURI"].split("?")[0].removesuffix("/status"),
        )
        if code >= 400:
            tally.refused += 1
        elif code == 201 or event["verb"] == "delete" or before.get(path) != after.get(path):
            tally.changes.append(f"{event['verb']} {event['requestURI']} {code}")
        else:
            tally.idle_writes += 1
    tally.wrong += len(_wrong(api, names))
    for name in names:
        api.delete(model_path(_PLACE, name))
        api.delete(f"{RERANK}/namespaces/{_PLACE}/apikeys/{name}")


def _apply(api: Api, names: list[str], *, replicas: int) -> None:
    for name in names:
        apply_model(api, _PLACE, name, replicas=replicas)
        body = {
            "apiVersion": "rerank.dev/v1alpha1",
            "kind": "APIKey",
            "metadata": {"name": name},
            "spec": {"description": f"{replicas} replicas"},
        }
        api.apply(f"{RERANK}/namespaces/{_PLACE}/apikeys/{name}", body)


def _state(api: Api, names: list[str]) -> dict[str, object]:
    """What only an operator writes, of all resources and what is made for them, by path."""
    found: dict[str, object] = {}
    for name in names:
        for kind in ("configmaps", "services", "deployments", "networkpolicies", "poddisruptionbudgets"):
            path = child_path(_PLACE, kind, f"rerank-{name}")
            body = api.find(path) or {"metadata": {}}
            found[path] = (body["metadata"].get("labels"), body.get("spec"), body.get("data"))
        for path in (model_path(_PLACE, name), f"{RERANK}/namespaces/{_PLACE}/apikeys/{name}"):
            found[path] = api.get(path).get("status")
        path = f"/api/v1/namespaces/{_PLACE}/secrets/{name}"
        found[path] = (api.find(path) or {}).get("data")
    return found


def _wrong(api: Api, names: list[str]) -> list[str]:
    """What of the resources, and of what is made for them, is not as it should be."""
    found = []
    for name in names:
        deployment = api.find(child_path(_PLACE, "deployments", f"rerank-{name}"))
        if deployment is None or deployment["spec"]["replicas"] != 2:
            found.append(f"the Deployment of {name}")
        for path in (model_path(_PLACE, name), f"{RERANK}/namespaces/{_PLACE}/apikeys/{name}"):
            body = api.get(path)
            if body.get("status", {}).get("observedGeneration") != body["metadata"]["generation"]:
                found.append(f"the status of {body['kind']} {name}")
    return found
