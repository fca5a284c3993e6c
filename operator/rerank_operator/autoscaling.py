"""Has models grow and shrink with what the gateways tell: asks each, decides, writes. A task of the leader.

The number stands in status.autoscaling, under a field manager of its own, and the model's reconciler makes
the Deployment's replicas of it. spec.replicas, which a HorizontalPodAutoscaler, KEDA or kubectl scale may
write, is never written here and not heeded after the start: so no two write the same number.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog
from pydantic import ValidationError

from rerank_api import names
from rerank_api.model_deployment import AutoscalingStatus, ModelDeployment
from rerank_operator import autoscaler, load_report, resources, status
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.autoscaler import Decision, Load, Look, Memory
from rerank_operator.cluster import Cluster
from rerank_operator.events import Notice, Recorder
from rerank_operator.gateways import Gateways
from rerank_operator.health import Metrics
from rerank_operator.load_report import ModelId

# A first request waits for this, and a queue grows meanwhile.
BUSY_SECONDS: Final = 1.0
# Every model has a replica and nothing to do.
CALM_SECONDS: Final = 5.0

_log = structlog.get_logger()


@dataclass(slots=True)
class Autoscaled:
    """The models with autoscaling, as they were last looked at, and how many of their replicas serve.

    Also those whose autoscaling was taken away, as long as their status has something of it.
    """

    models: dict[ModelId, tuple[ModelDeployment, int]] = field(default_factory=dict)
    overruled: list[ModelDeployment] = field(default_factory=list)
    """Models whose spec.replicas somebody changed in vain."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, model: ModelDeployment, *, ready: int | None = None) -> None:
        """The model is as it is here, and has so many replicas that serve, None for as many as before."""
        key = (model.metadata.namespace, model.metadata.name)
        if model.spec.autoscaling is None and model.status.autoscaling is None:
            self.models.pop(key, None)
            return
        before, served = self.models.get(key, (None, 0))
        self.models[key] = (model, served if ready is None else ready)
        if before is None or before.spec.autoscaling != model.spec.autoscaling:
            self.changed.set()
        elif model.spec.autoscaling is not None and model.spec.replicas != before.spec.replicas:
            self.overruled.append(model)
            self.changed.set()

    def forget(self, namespace: str, name: str) -> None:
        """The model is gone."""
        self.models.pop((namespace, name), None)


@dataclass(slots=True)
class Autoscaling:
    """One for the process. `wake` has a model looked at."""

    api: Cluster
    gateways: Gateways
    recorder: Recorder
    autoscaled: Autoscaled
    metrics: Metrics
    wake: Callable[[str, str], None]
    _silent: frozenset[str] = frozenset()
    _memories: dict[tuple[str, str, str], Memory] = field(default_factory=dict)

    async def run(self) -> None:
        """For ever."""
        while True:
            self.autoscaled.changed.clear()
            busy = True
            try:
                busy = await self.look()
            except Exception:  # noqa: BLE001  # whatever is wrong with it must not stop models and keys
                _log.exception("could not autoscale")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BUSY_SECONDS if busy else CALM_SECONDS):
                    await self.autoscaled.changed.wait()

    async def look(self) -> bool:
        """Ask every gateway once and bring each model to its number. Whether to look again soon."""
        while self.autoscaled.overruled:
            model = self.autoscaled.overruled.pop()
            self.recorder.record(model, [_overruled(model)])
        models = list(self.autoscaled.models.items())
        marks = {_mark(model) for _, (model, _) in models}
        self._memories = {mark: memory for mark, memory in self._memories.items() if mark in marks}
        if not models:
            self._note_silent(frozenset())
            return False
        loads, complete = await self._ask_all(dict(models))
        busy = False
        for key, (model, ready) in models:
            found = loads.get(key, ())
            busy |= model.wanted_replicas == 0 or any(map(_works, found))
            try:
                await self._scale(model, ready, found, complete=complete)
            except ApiError as error:
                busy |= error.conflict  # it changed meanwhile: again in the next round
                if not (error.conflict or error.ending):
                    _log.warning("could not scale", namespace=key[0], name=key[1], error=str(error))
            except ValidationError as error:
                _log.error("cannot read a model", namespace=key[0], name=key[1], errors=error.error_count())
            except NotLeaderError:
                _log.warning("not scaled: the lease is not held")
        return busy

    async def _ask_all(
        self, wanted: Mapping[ModelId, object]
    ) -> tuple[Mapping[ModelId, Sequence[Load]], bool]:
        """The loads of the models, and whether every gateway there is has told them."""
        addresses = sorted(await self.gateways.addresses())
        answers = await asyncio.gather(*(self._ask(ip, wanted) for ip in addresses))
        self._note_silent(
            frozenset(ip for ip, answer in zip(addresses, answers, strict=True) if answer is None)
        )
        found: dict[ModelId, list[Load]] = {}
        for answer in answers:
            for key, load in (answer or {}).items():
                found.setdefault(key, []).append(load)
        return found, bool(addresses) and not self._silent

    def _note_silent(self, silent: frozenset[str]) -> None:
        """These gateways do not tell their load. Said once of each, and once when all of them do again."""
        self.metrics.silent_gateways.set(len(silent))
        if silent - self._silent:
            _log.warning("gateways do not tell their load: no model shrinks", addresses=sorted(silent))
        elif self._silent and not silent:
            _log.info("every gateway tells its load again")
        self._silent = silent

    async def _ask(self, ip: str, wanted: Mapping[ModelId, object]) -> Mapping[ModelId, Load] | None:
        data = await self.gateways.ask(ip, "/load", limit=load_report.SIZE_LIMIT_BYTES)
        return None if data is None else load_report.loads(data, wanted)

    async def _scale(
        self, model: ModelDeployment, ready: int, loads: Sequence[Load], *, complete: bool
    ) -> None:
        """Decide on one model, and write what changes.

        Raises:
            ApiError, NotLeaderError: it was not written.
        """
        spec, known, now = model.spec.autoscaling, model.status.autoscaling, time.monotonic()
        if spec is None:
            await self._write(model, None)
            return
        if known is None:
            started = Decision(model.wanted_replicas, "Started", "what the model started with")
            await self._write(model, started)
            return
        mark = _mark(model)
        look = Look(
            current=known.replicas,
            ready=ready,
            loads=loads,
            complete=complete,
            scaled_seconds_ago=_seconds_ago(known.last_scale_time),
            now=now,
        )
        decision, memory = autoscaler.decide(spec, look, self._memories.get(mark) or Memory.begun(now))
        self._memories[mark] = memory
        if decision.replicas != known.replicas and await self._write(model, decision):
            self.recorder.record(model, [_scaled(known.replicas, decision)])
            self.wake(model.metadata.namespace, model.metadata.name)

    async def _write(self, seen: ModelDeployment, decision: Decision | None) -> bool:
        """Put the decision, or nothing, into the status. False where it is not that of what was seen."""
        namespace, name = seen.metadata.namespace, seen.metadata.name
        live = await self.api.get(resources.MODEL_DEPLOYMENT, namespace, name)
        if live is None or live["metadata"]["uid"] != seen.metadata.uid:
            self.autoscaled.forget(namespace, name)
            return False
        model = ModelDeployment.parse(live)
        self.autoscaled.note(model)
        if (model.spec.autoscaling, model.status.autoscaling) != (
            seen.spec.autoscaling,
            seen.status.autoscaling,
        ):
            return False
        written = {"autoscaling": status.as_written(_status(decision))} if decision is not None else {}
        done = await self.api.apply_status(
            resources.MODEL_DEPLOYMENT, live, written, field_manager=names.AUTOSCALING_FIELD_MANAGER
        )
        self.autoscaled.note(ModelDeployment.parse(done))
        return True


def _mark(model: ModelDeployment) -> tuple[str, str, str]:
    """One that was made anew under the name is another one."""
    return (model.metadata.namespace, model.metadata.name, model.metadata.uid)


def _status(decision: Decision) -> AutoscalingStatus:
    return AutoscalingStatus(
        replicas=decision.replicas,
        reason=decision.reason,
        message=decision.message,
        last_scale_time=datetime.now(UTC).replace(microsecond=0),
    )


def _works(load: Load) -> bool:
    return bool(load.queued_tokens or load.running_tokens or load.held_requests)


def _seconds_ago(then: datetime | None) -> float:
    """A time to come is one of another clock, and tells nothing."""
    ago = math.inf if then is None else (datetime.now(UTC) - then).total_seconds()
    return ago if ago >= 0 else math.inf


def _scaled(before: int, decision: Decision) -> Notice:
    reason = "ScaledUp" if decision.replicas > before else "ScaledDown"
    return Notice("Normal", reason, f"replicas from {before} to {decision.replicas}: {decision.message}")


def _overruled(model: ModelDeployment) -> Notice:
    return Notice(
        "Warning",
        "ReplicasNotHeeded",
        f"spec.replicas was set to {model.spec.replicas}, but spec.autoscaling decides how many there are:"
        " set spec.autoscaling.minReplicas and maxReplicas instead, or remove spec.autoscaling before a"
        " HorizontalPodAutoscaler, KEDA or kubectl scale takes over",
    )
