"""A watch falls silent, of each kind and in two ways: its operator ends, and the next one hears."""

import asyncio
import itertools
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from dev.cluster import temporary
from dev.cluster.access import Access
from soak.bound import Bound, percentile
from tests.apiserver.api import RERANK, Api, eventually, with_crds
from tests.apiserver.fault_proxy import Asked, Exchange, Fault, FaultProxy
from tests.apiserver.operator_process import NAMESPACE, Operator, install_rights

_KINDS: Final = ("apikeys", "modeldeployments", "catalogmodels", "deployments", "services", "pods")
# 90 s from the last sign of life, looked at every 5 s, and the stop.
_END_SECONDS: Final = 120.0
_HEARD_SECONDS: Final = 30.0
_START_SECONDS: Final = 180.0


@dataclass(frozen=True)
class _Mute(Fault):
    """The watches of one kind, those that are open too. New ones get at most the head of an answer."""

    kind: str
    heads: bool

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        if not self.keeps_silent(exchange.asked):
            return await exchange.pass_on()
        if self.heads:
            await exchange.open()
        await asyncio.sleep(10 * _START_SECONDS)
        return exchange.break_off()

    def keeps_silent(self, asked: Asked) -> bool:
        return asked.is_watch and asked.path.endswith(f"/{self.kind}")


@dataclass(frozen=True)
class _Refused(Fault):
    """The watches of one kind are refused: the operator has no right to them any more."""

    kind: str

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        if exchange.asked.is_watch and exchange.asked.path.endswith(f"/{self.kind}"):
            return exchange.refuse(403, "Forbidden", "no right to it")
        return await exchange.pass_on()


@dataclass
class _Case:
    """An operator for a namespace of its own, behind a proxy of its own, and how it ended."""

    operator: Operator
    proxy: FaultProxy
    fault: Fault
    place: str
    seconds: float = float("inf")
    code: int | None = None

    def look(self, began: float) -> bool:
        """Whether it has ended."""
        process = self.operator.process
        if process is not None and process.poll() is not None:
            self.seconds, self.code = time.monotonic() - began, process.poll()
            self.operator.process = None
        return self.operator.process is None

    def told(self) -> bool:
        """Whether its log names the watch."""
        assert isinstance(self.fault, _Mute)
        kind = self.fault.kind
        watch = kind if kind == "catalogmodels" else f"{self.place}/{kind}"
        return f"no sign of life of the watch of {watch}" in self.operator.log()


def run(length: float) -> list[Bound]:
    """All of them at once; one more is refused its watch, and one is left in peace."""
    faults: list[Fault] = [_Mute(kind, heads) for heads, kind in itertools.product((True, False), _KINDS)]
    faults = faults[:: max(1, round(1 / length))]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        plane = stack.enter_context(temporary.control_plane(folder / "control-plane"))
        api = with_crds(Api(Access.to(plane)))
        token = install_rights(api)
        _allow_leases(api)
        cases = []
        for number, fault in enumerate([*faults, _Refused("pods"), Fault()]):
            place = f"place-{number}"
            api.create("/api/v1/namespaces", {"metadata": {"name": place}})
            proxy = stack.enter_context(FaultProxy(api.access))
            environment = {"RERANK_WATCH_NAMESPACES": place, "RERANK_LEASE_NAME": place}
            operator = Operator(api, folder / place, token, environment, server=proxy.url)
            cases.append(_Case(operator, proxy, fault, place))
            stack.callback(_kill, operator)
        return _silence(api, cases)


def _silence(api: Api, cases: list[_Case]) -> list[Bound]:
    for case in cases:
        case.operator.start(ready=False)
    for case in cases:
        eventually("it leads", case.operator.leads, seconds=_START_SECONDS)
        _make_key(api, case, "early")
        eventually("it hears", partial(_seen, api, case, "early"), seconds=_START_SECONDS)
    *muted, refused, sound = cases
    for case in cases:
        case.proxy.fault = case.fault
    began = time.monotonic()
    deaf = muted[0]
    _make_key(api, deaf, "late")
    eventually(
        "all that are deaf have ended",
        lambda: sum(case.look(began) for case in muted) == len(muted),
        seconds=2 * _END_SECONDS,
    )
    heard_all_the_same = _seen(api, deaf, "late")
    wrongly_ended = refused.look(began) + sound.look(began)
    seconds = [case.seconds for case in muted]

    deaf.proxy.fault = Fault()
    restarted = time.monotonic()
    deaf.operator.start(ready=False)
    eventually("the next one hears", lambda: _seen(api, deaf, "late"), seconds=4 * _HEARD_SECONDS)
    return [
        Bound("operators of which one watch fell silent", len(muted)),
        Bound("until such an operator had ended, median", percentile(seconds, 0.5), None, "s"),
        Bound("until such an operator had ended, longest", max(seconds), _END_SECONDS, "s"),
        Bound("of these, not with exit code 1", sum(case.code != 1 for case in muted), 0),
        Bound("of these, without naming the watch", sum(not case.told() for case in muted), 0),
        Bound("events that were heard although the watch was silent", float(heard_all_the_same), 0),
        Bound("until the next operator had heard them", time.monotonic() - restarted, _HEARD_SECONDS, "s"),
        Bound("operators that ended, though well or only refused a watch", wrongly_ended, 0),
    ]


def _make_key(api: Api, case: _Case, name: str) -> None:
    body = {"apiVersion": "rerank.dev/v1alpha1", "kind": "APIKey", "metadata": {"name": name}, "spec": {}}
    api.apply(_key_path(case, name), body)


def _seen(api: Api, case: _Case, name: str) -> bool:
    return "status" in api.get(_key_path(case, name))


def _key_path(case: _Case, name: str) -> str:
    return f"{RERANK}/namespaces/{case.place}/apikeys/{name}"


def _allow_leases(api: Api) -> None:
    """The chart allows the one Lease of its installation; here each operator has one."""
    root = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"]}
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "soak"}}
    api.apply(f"{root}/roles/soak", {**head, "kind": "Role", "rules": [rule]})
    binding = {
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "soak"},
        "subjects": [{"kind": "ServiceAccount", "name": "rerank-operator", "namespace": NAMESPACE}],
    }
    api.apply(f"{root}/rolebindings/soak", head | binding)


def _kill(operator: Operator) -> None:
    if operator.process is not None:
        operator.kill()
