"""Gathers what a decision about one ModelDeployment needs, live. Called by the model reconciler."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from rerank_api import names
from rerank_api.model_deployment import ModelDeployment
from rerank_operator import nodes, pods, resources
from rerank_operator.api_error import ApiError
from rerank_operator.builders.metadata import is_owned
from rerank_operator.builders.source import Source
from rerank_operator.cluster import Cluster
from rerank_operator.nodes import Node
from rerank_operator.pod_status import Report
from rerank_operator.pods import Pod
from rerank_operator.resources import Object

CHILDREN: Final = (
    resources.CONFIG_MAP,
    resources.SERVICE,
    resources.POD_DISRUPTION_BUDGET,
    resources.NETWORK_POLICY,
    resources.DEPLOYMENT,
)

# Mounting volumes and setting up the network takes seconds.
USUAL_PREPARATION: Final = timedelta(seconds=15)
# A claim is made from its template in a fraction of that.
USUAL_CLAIMING: Final = timedelta(seconds=2)

# A crowd of replicas that wait asks for the nodes once. Not for longer: it is told when the scheduler finds
# something else, and not when the nodes change after that.
FRESH_SECONDS: Final = 1.0
# What GPU a node has does not change, and a replica that loads is looked at every other second for minutes.
STALE_SECONDS: Final = 120.0

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Observed:
    """The children by kind, None where there is none, and the pods."""

    children: Mapping[str, Object | None]
    pods: tuple[Pod, ...]

    @property
    def unsettled(self) -> bool:
        """A replica is on its way, and may have news that no event tells."""
        return any(pod.running and not pod.ready for pod in self.pods)

    @property
    def unprepared(self) -> bool:
        """A node prepares a replica, and no event tells when it cannot."""
        return any(pod.unprepared_since is not None and pod.untouched for pod in self.pods)

    @property
    def unclaimed(self) -> bool:
        """A replica waits for a claim of its own, and no event tells when it cannot get one."""
        return any(pod.unclaimed_since is not None for pod in self.pods)

    @property
    def unreported(self) -> bool:
        """A replica serves and has not told what it serves."""
        return any(pod.running and pod.ready and not _is_final(pod.report) for pod in self.pods)


NOTHING: Final = Observed(children={kind.kind: None for kind in CHILDREN}, pods=())
"""What there is of a model that was never looked at."""


class Asker(Protocol):
    """What observe needs of pod_status.Poller."""

    async def ask(self, ip: str) -> Report | None:
        """The report of the pod at `ip`, if it gives one."""


@dataclass(slots=True)
class Reports:
    """The last report of each pod: a pod that does not answer in time has not forgotten what it said before.

    Kept by model, and replaced with each look, so that it never holds more than the pods that are there.
    """

    asker: Asker
    _known: dict[tuple[str, str], dict[tuple[str, int], Report]] = field(default_factory=dict)

    async def of(self, namespace: str, model: str, found: list[Pod]) -> list[Pod]:
        """The pods with their reports. Those that are ready and were asked since are not asked again."""
        known = self._known.get((namespace, model), {})

        async def look(pod: Pod) -> Pod:
            mark = (pod.uid, pod.serve.restarts + (pod.fetch.restarts if pod.fetch else 0))
            report = known.get(mark)
            if pod.running and pod.ip is not None and not (pod.ready and _is_final(report)):
                report = await self.asker.ask(pod.ip) or report
            if report is not None:
                fresh[mark] = report
            return replace(pod, report=report)

        fresh: dict[tuple[str, int], Report] = {}
        looked = await asyncio.gather(*(look(pod) for pod in found))
        if fresh:
            self._known[namespace, model] = fresh
        else:
            self._known.pop((namespace, model), None)
        return list(looked)

    def forget(self, namespace: str, model: str) -> None:
        """The model is gone."""
        self._known.pop((namespace, model), None)


@dataclass(slots=True)
class Nodes:
    """The nodes of the cluster, as they were lately. Read only where they can explain something.

    They belong to no namespace: an operator that was installed for named namespaces may not read them, and
    does without.
    """

    api: Cluster
    readable: bool
    clock: Callable[[], float] = time.monotonic
    _found: tuple[Node, ...] | None = None
    _read_at: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self, *, age: float, among: Iterable[str] = ()) -> tuple[Node, ...] | None:
        """All nodes, as they were no longer than `age` seconds ago, or None where they may not be read.

        A list that lacks a node of those names `among` them is read anew: the node is newer.

        Raises:
            ApiError: they could not be read.
        """
        if not self.readable:
            return None
        async with self._lock:
            newer = self._found is not None and set(among) - {node.name for node in self._found}
            least = FRESH_SECONDS if newer else age
            if self._read_at is None or self.clock() - self._read_at > least:
                self._found = await self._read()
                self._read_at = self.clock()
            return self._found

    async def _read(self) -> tuple[Node, ...] | None:
        try:
            return tuple([nodes.read(body) async for body in self.api.pages(resources.NODE, None)])
        except ApiError as error:
            if error.status == 403:  # an administrator's choice: rbac without the chart's role for nodes
                return None
            raise


async def observe(api: Cluster, reports: Reports, model: ModelDeployment, *, now: datetime) -> Observed:
    """Look at everything that belongs to `model`.

    Raises:
        ApiError: something could not be read; nothing must be decided then.
    """
    namespace, name = model.metadata.namespace, model.metadata.name
    child = names.child_name(name)
    listed, children = await asyncio.gather(
        api.list(resources.POD, namespace, labels=f"{names.MODEL_LABEL}={name}"),
        asyncio.gather(*(api.get(kind, namespace, child) for kind in CHILDREN)),
    )
    found = [pods.read(body) for body in listed if pods.is_replica(body, deployment=child)]
    found = list(await asyncio.gather(*(_with_complaint(api, namespace, pod, now=now) for pod in found)))
    return Observed(
        children={kind.kind: there for kind, there in zip(CHILDREN, children, strict=True)},
        pods=tuple(await reports.of(namespace, name, found)),
    )


async def _with_complaint(api: Cluster, namespace: str, pod: Pod, *, now: datetime) -> Pod:
    """Claims, volumes and network that fail are told by Events alone: look for one where it takes unusually
    long.
    """
    if pod.unclaimed_since is not None:
        since, usual, about = pod.unclaimed_since, USUAL_CLAIMING, pods.CLAIMING
    elif pod.unprepared_since is not None and pod.untouched:
        since, usual, about = pod.unprepared_since, USUAL_PREPARATION, pods.PREPARING
    else:
        return pod
    if now - since < usual:
        return pod
    return replace(pod, complaint=pods.complaint(await api.warnings(namespace, pod.uid), about=about))


def commit_of(source: Source, observed: Observed, *, owner_uid: str) -> str | None:
    """The commit that `source` stands for, as far as it is known.

    A branch or tag is resolved once, by the first pod that fetches it; the ConfigMap remembers.
    """
    if source.repo is None or source.commit is not None:
        return source.commit
    kept = observed.children.get(resources.CONFIG_MAP.kind)
    if kept is not None and is_owned(kept, owner_uid):
        value = (kept.get("data") or {}).get(source.key, "")
        if _COMMIT.fullmatch(value):
            return str(value)
    answers = {
        pod.report.source.revision
        for pod in observed.pods
        if pod.source == source.key
        and pod.report is not None
        and pod.report.source is not None
        and pod.report.source.repo == source.repo
    }
    return min(answers, default=None)


def _is_final(report: Report | None) -> bool:
    return report is not None and report.phase == "Ready"
