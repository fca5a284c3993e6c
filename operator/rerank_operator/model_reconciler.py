"""One look at one ModelDeployment: observe, decide, act, report. Called by the workers of `main`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import ValidationError

from rerank_api import backend_token
from rerank_api.conditions import Condition, Verdict, merge
from rerank_api.effective import Effective, effective
from rerank_api.model_deployment import ModelDeployment, ModelDeploymentStatus
from rerank_operator import catalog, name_claims, policy, resources, rollout, status
from rerank_operator.act import act
from rerank_operator.api_error import ApiError
from rerank_operator.autoscaling import Autoscaled
from rerank_operator.builders import (
    config_map,
    deployment,
    metadata,
    network_policy,
    pod_disruption_budget,
    service,
)
from rerank_operator.builders.source import Source, source_of
from rerank_operator.catalog import Users
from rerank_operator.claims import Claims, ObjectId, Strength
from rerank_operator.cluster import Cluster
from rerank_operator.config import Settings
from rerank_operator.events import Recorder, notices
from rerank_operator.listed import Listed
from rerank_operator.model_metrics import ModelMetrics
from rerank_operator.name_claims import Place
from rerank_operator.nodes import Node
from rerank_operator.observe import (
    FRESH_SECONDS,
    NOTHING,
    STALE_SECONDS,
    USUAL_CLAIMING,
    Nodes,
    Observed,
    Reports,
    commit_of,
    observe,
)
from rerank_operator.plan import plan
from rerank_operator.pods import TEMPLATE_ANNOTATION
from rerank_operator.resources import Object
from rerank_operator.situation import Obstacle, Situation, assess, overdue, replica_failure

POLL_SECONDS: Final = 2.0
# Something is wrong that takes a person, or the runtime's next try: no hurry to ask again.
TROUBLED_POLL_SECONDS: Final = 5.0
# No event tells when an obstacle goes away that lies in objects which are not watched, or a pod can be asked.
UNTOLD_SECONDS: Final = 15.0
# The nodes that a verdict of the scheduler was explained with may be those of FRESH_SECONDS before it, and it
# tells the time in whole seconds: it is explained once more.
_FRESH_VERDICT: Final = timedelta(seconds=FRESH_SECONDS + 1)

# What autoscaling wants and what was measured stand in the same status, and are not written here.
_OURS: Final = ModelDeploymentStatus.model_fields.keys() - {"autoscaling", "measured"}
_STATUS_FIELDS: Final = status.fields_of(ModelDeploymentStatus, only=_OURS)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How the replicas are to run, and on what. `told`: GPU memory in bytes, as the entry tells it."""

    effective: Effective
    source: Source
    told: int | None


@dataclass(slots=True)
class ModelReconciler:
    """Brings a model's children to what its spec wants and its status to what is there."""

    api: Cluster
    listed: Listed
    reports: Reports
    recorder: Recorder
    settings: Settings
    users: Users
    entries: catalog.Entries
    metrics: ModelMetrics
    autoscaled: Autoscaled
    claims: Claims[Place]
    wake: Callable[[str, str], None]
    nodes: Nodes
    backend_master: bytes = field(repr=False)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One look. Returns the seconds until the next one is due, None when an event will ask for it.

        Raises:
            ApiError: the look could not be finished; try again.
        """
        await self.claims.fill()
        live = await self.listed.read(resources.MODEL_DEPLOYMENT, namespace, name)
        if live is None or "deletionTimestamp" in live["metadata"]:
            self.reports.forget(namespace, name)
            self.users.note((namespace, name), None)
            self.metrics.forget(namespace, name)
            self.autoscaled.forget(namespace, name)
            self._claim((namespace, name), {})
            return None  # the owner references see to the children
        try:
            model = ModelDeployment.parse(live)
        except ValidationError as error:
            self.autoscaled.forget(namespace, name)
            await self._report_unreadable(live, error)
            return None

        now = datetime.now(UTC)
        observed, situation = await self._settle(model, live, now=now)
        wanted_status = status.model_status(
            situation,
            gateway_url=self.settings.gateway_url,
            now=now,
            besides=[await self._names(_with_repo(live, situation.source.repo))],
        )
        await self._report(model, live, wanted_status)
        self.metrics.note(
            namespace,
            name,
            phase=wanted_status.phase or "",
            wanted=situation.wanted,
            ready=wanted_status.ready_replicas,
        )
        self.autoscaled.note(model, ready=wanted_status.ready_replicas)
        return _next_look(situation, observed, now=now)

    async def _settle(
        self, model: ModelDeployment, live: Object, *, now: datetime
    ) -> tuple[Observed, Situation]:
        """Bring the children a step nearer to what is wanted; what was seen before, and how things are now.

        A model without a status has no children to look for. Where it has some all the same (an operator was
        killed before it wrote the status), making them anew is refused, and then they are looked for.
        """
        wanted = await self._resolve(model)
        if not isinstance(wanted, Obstacle) and not model.status.observed_generation:
            try:
                return NOTHING, await self._advance(model, live, NOTHING, wanted, now=now)
            except ApiError as error:
                if not error.conflict:
                    raise
        observed = await observe(self.api, self.reports, model, now=now)
        if isinstance(wanted, Obstacle):
            return observed, _blocked(model, observed, wanted)
        return observed, await self._advance(model, live, observed, wanted, now=now)

    async def _names(self, live: Object) -> Verdict:
        """Whether the model's names lead to it; wakes the models that its claims concern."""
        owner = name_claims.owner(live)
        self._claim(owner, name_claims.strengths(live))
        disputes = name_claims.disputes(live, self.claims.lost(owner))
        for winner in {winner for _, winner in disputes}:
            if await self.api.get(resources.MODEL_DEPLOYMENT, *winner) is None:  # its end went unseen
                self._claim(winner, {})
        return name_claims.verdict(live, self.claims.lost(owner))

    def _claim(self, owner: ObjectId, names: Mapping[Place, Strength]) -> None:
        for other in self.claims.note(owner, names):
            self.wake(*other)

    async def _resolve(self, model: ModelDeployment) -> _Wanted | Obstacle:
        """What the fields of the model, its catalog entry and the installation's policy come to."""
        named = model.spec.model.catalog
        self.users.note((model.metadata.namespace, model.metadata.name), named)
        entry = await catalog.read(self.entries, named) if named is not None else None
        if isinstance(entry, Obstacle):
            return entry
        found = effective(model.spec, entry.spec.defaults if entry else None)
        source = source_of(
            model,
            hub_endpoint=self.settings.hub_endpoint,
            entry=entry,
            remote_code=found.engine.trust_remote_code,
        )
        refusal = policy.refusal(
            model,
            found,
            source,
            entry,
            policy=self.settings.policy,
            hub_endpoint=self.settings.hub_endpoint,
        )
        return refusal or _Wanted(
            effective=found, source=source, told=entry.spec.memory_bytes if entry else None
        )

    async def _advance(
        self, model: ModelDeployment, live: Object, observed: Observed, wanted: _Wanted, *, now: datetime
    ) -> Situation:
        """Bring the children a step nearer to what is wanted."""
        source = wanted.source
        commit = commit_of(source, observed, owner_uid=model.metadata.uid)
        template = deployment.pod_template(
            model,
            effective=wanted.effective,
            source=source,
            settings=self._pod_settings(model.metadata.namespace),
        )
        revision, running = _revision(template), observed.children["Deployment"]
        strategy = rollout.strategy(
            model.spec.rollout.strategy,
            template=revision,
            live=running,
            pods=observed.pods,
            now=now,
        )
        pin = commit if source.needs_pin else None
        children = [
            *_pins(model, source, pin, kept=observed.children["ConfigMap"]),
            service.service(model),
            *_budgets(model),
            *self._network_policies(model),
            deployment.deployment(model, template=template, strategy=strategy),
        ]
        planned = plan(children, observed.children, owner=metadata.owner_reference(model))
        if not planned.is_empty and observed is not NOTHING:
            # The children may be newer than the model that was read, as where the store was restored, and
            # then its spec would undo what a newer one did.
            await self.api.confirm(resources.MODEL_DEPLOYMENT, live)
        obstacle = await act(planned, model, api=self.api, recorder=self.recorder)
        need = _need(model, wanted, observed, revision)
        return assess(
            model,
            effective=wanted.effective,
            source=source,
            commit=commit,
            template=revision,
            pods=observed.pods,
            obstacle=obstacle or replica_failure(running),
            overdue=overdue(running),
            nodes=await self._nodes(observed, wanted.effective, revision, need=need),
            need=need,
        )

    async def _nodes(
        self, observed: Observed, effective: Effective, revision: str, *, need: int | None
    ) -> tuple[Node, ...] | None:
        """The nodes, where they can explain what a replica waits for, or may run into."""
        coming = [pod for pod in observed.pods if pod.template == revision and not pod.ready]
        if any(pod.unschedulable for pod in coming):
            return await self.nodes.look(age=FRESH_SECONDS)
        gpu = effective.resources.gpu
        if need is None or not gpu.count or gpu.claim_template is not None:
            return None
        placed = [pod.node for pod in coming if pod.node]
        return await self.nodes.look(age=STALE_SECONDS, among=placed) if placed else None

    def _network_policies(self, model: ModelDeployment) -> list[Object]:
        if not self.settings.network_policies:
            return []
        return [network_policy.network_policy(model, system_namespace=self.settings.namespace)]

    def _pod_settings(self, namespace: str) -> deployment.PodSettings:
        token = backend_token.token(self.backend_master, namespace)
        return deployment.PodSettings(
            image_cpu=self.settings.runtime_image_cpu,
            image_cuda=self.settings.runtime_image_cuda,
            image_pull_policy=self.settings.image_pull_policy,
            token_hash=backend_token.token_hash(token),
        )

    async def _report(self, model: ModelDeployment, live: Object, wanted: ModelDeploymentStatus) -> None:
        written = status.as_written(wanted)
        if not status.differs(written, live.get("status", {}), fields=_STATUS_FIELDS):
            return
        await self.api.apply_status(resources.MODEL_DEPLOYMENT, live, written)
        old = model.status.conditions
        self.recorder.record(model, notices(old, status.changed(old, wanted.conditions)))

    async def _report_unreadable(self, live: Object, error: ValidationError) -> None:
        """The object passed the API server but not our model: another version of the CRD is installed."""
        where = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)
        )
        message = f"this version of the operator cannot read the resource: {where}"[:1024]
        generation = live["metadata"].get("generation", 0)
        old = [Condition.model_validate(c) for c in live.get("status", {}).get("conditions", ())]
        verdict = Verdict(type="Ready", status="False", reason="UnreadableSpec", message=message)
        conditions = merge(
            old, [verdict], generation=generation, now=datetime.now(UTC).replace(microsecond=0)
        )
        wanted = ModelDeploymentStatus(
            observed_generation=generation, phase="Failed", conditions=conditions, message=message
        )
        written = status.as_written(wanted)
        if status.differs(written, live.get("status", {}), fields=["phase", "message", "conditions"]):
            await self.api.apply_status(resources.MODEL_DEPLOYMENT, live, written)


def _pins(model: ModelDeployment, source: Source, pin: str | None, *, kept: Object | None) -> list[Object]:
    """The ConfigMap, of a source that needs one: before the first pin too, for its name must be the model's.

    One that is not needed any more stays: to remove it would take the right to remove any ConfigMap.
    """
    if not source.needs_pin and (kept is None or not metadata.is_owned(kept, model.metadata.uid)):
        return []
    return [config_map.config_map(model, source_key=source.key, pin=pin)]


def _budgets(model: ModelDeployment) -> list[Object]:
    if not pod_disruption_budget.is_wanted(model.spec):
        return []
    return [pod_disruption_budget.pod_disruption_budget(model)]


def _with_repo(live: Object, repo: str | None) -> Object:
    """The resource as its status will tell of the repository, which a catalog entry names."""
    told = live.get("status") or {}
    return {**live, "status": {**told, "model": {**(told.get("model") or {}), "repo": repo}}}


def _blocked(model: ModelDeployment, observed: Observed, obstacle: Obstacle) -> Situation:
    """What is there, when it cannot be said what should be: replicas that run run on as they are."""
    running = observed.children.get("Deployment")
    known = model.status.model
    return assess(
        model,
        effective=model.status.effective,
        source=Source(
            key=(known and known.source_digest) or "",
            directory="",
            repo=known.repo if known else None,
            revision=known.revision if known else None,
        ),
        commit=known.revision if known else None,
        template=_revision(running["spec"]["template"]) if running is not None else "",
        pods=observed.pods,
        obstacle=obstacle,
        overdue=False,
    )


def _need(model: ModelDeployment, wanted: _Wanted, observed: Observed, revision: str) -> int | None:
    """The GPU memory that the model takes, in bytes: as its entry, its newest or earlier replicas tell it."""
    if wanted.told is not None:
        return wanted.told
    newest = (
        pod for pod in observed.pods if pod.template == revision and not pod.deleting and not pod.finished
    )
    reports = (pod.report for pod in sorted(newest, key=lambda pod: pod.name))
    # The same that the status is going to tell, so that the next look finds nothing new in it.
    found = next(
        (report.model for report in reports if report is not None and report.model is not None), None
    )
    return found.memory_bytes if found is not None else status.memory_known(model, wanted.source)


def _revision(template: Object) -> str:
    annotations = template["metadata"].get("annotations") or {}
    return str(annotations.get(TEMPLATE_ANNOTATION, ""))


def _next_look(situation: Situation, observed: Observed, *, now: datetime) -> float | None:
    if observed.unsettled:
        return POLL_SECONDS if situation.cause is None else TROUBLED_POLL_SECONDS
    if observed.unclaimed and situation.cause is None:
        return USUAL_CLAIMING.total_seconds()
    untold = (
        situation.obstacle is not None or observed.unreported or observed.unprepared or observed.unclaimed
    )
    if any(
        pod.unschedulable_since and now - pod.unschedulable_since < _FRESH_VERDICT for pod in observed.pods
    ):
        return _FRESH_VERDICT.total_seconds()
    left = rollout.patience_left(observed.pods, now=now)
    if left is not None:
        return min(left + 0.5, UNTOLD_SECONDS)
    return UNTOLD_SECONDS if untold else None
