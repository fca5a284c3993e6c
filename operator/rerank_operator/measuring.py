"""Brings how fast models are into their status: asks each gateway, and writes what changed. A task of the
leader.

It stands in status.measured, under a field manager of its own. A model is read only when gateways have
something new to tell of it, so that nothing is asked of the API server while nobody asks for rankings.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from pydantic import ValidationError

from rerank_api import names
from rerank_api.model_deployment import MeasuredStatus, ModelDeployment
from rerank_operator import load_report, measurement, resources, status
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.cluster import Cluster
from rerank_operator.gateways import Gateways
from rerank_operator.load_report import ModelId
from rerank_operator.measurement import Figures, Memory

_log = structlog.get_logger()


@dataclass(slots=True)
class Measuring:
    """One for the process."""

    api: Cluster
    gateways: Gateways
    _memories: dict[ModelId, Memory] = field(default_factory=dict)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001  # whatever is wrong with it must not stop models and keys
                _log.exception("could not tell how fast models are")
            await asyncio.sleep(measurement.LOOK_SECONDS)

    async def look(self) -> None:
        """Ask every gateway once and write what is due."""
        told = await self._ask_all()
        if told is None:
            return
        now = datetime.now(UTC)
        for model, new in told.items():
            memory = self._memories.get(model)
            self._memories[model] = Memory(new) if memory is None else memory.saw(new)
        for model, memory in list(self._memories.items()):
            if model not in told and memory.is_over:
                del self._memories[model]
            if not memory.is_due(now):
                continue
            try:
                await self._write(model, memory, now)
            except ApiError as error:
                if not (error.conflict or error.ending):  # it changed meanwhile: again in the next round
                    _log.warning(
                        "could not tell how fast a model is", model="/".join(model), error=str(error)
                    )
                if not error.status:
                    return  # each that is left would wait as long for no answer
            except NotLeaderError:
                _log.warning("not told how fast models are: the lease is not held")
                return

    async def _ask_all(self) -> Mapping[ModelId, MeasuredStatus] | None:
        """What is new of each model. None where a gateway is silent: without it a model would seem to do less
        than it does.
        """
        addresses = sorted(await self.gateways.addresses())
        answers = await asyncio.gather(*map(self._ask, addresses))
        found: dict[ModelId, list[Figures]] = {}
        for answer in answers:
            if answer is None:
                return None
            for model, figures in answer.items():
                found.setdefault(model, []).append(figures)
        now = datetime.now(UTC)
        combined = {model: measurement.combined(figures, now) for model, figures in found.items()}
        return {model: new for model, new in combined.items() if new != MeasuredStatus()}

    async def _ask(self, ip: str) -> Mapping[ModelId, Figures] | None:
        data = await self.gateways.ask(ip, "/load", limit=load_report.SIZE_LIMIT_BYTES)
        return None if data is None else load_report.figures(data)

    async def _write(self, model: ModelId, memory: Memory, now: datetime) -> None:
        """Read the model and, where that is due by what its status has, write onto exactly what was read.

        Raises:
            ApiError, NotLeaderError: it was not written.
        """
        namespace, name = model
        live = await self.api.get(resources.MODEL_DEPLOYMENT, namespace, name)
        if live is None or (memory.uid and live["metadata"]["uid"] != memory.uid):
            del self._memories[model]  # what was measured is of one that is gone
            return
        try:
            held = ModelDeployment.parse(live).status.measured or MeasuredStatus()
        except ValidationError as error:
            _log.error("cannot read a model", namespace=namespace, name=name, errors=error.error_count())
            del self._memories[model]
            return
        memory = memory.read(held, live["metadata"]["uid"])
        if memory.is_due(now):
            new = measurement.merged(held, memory.seen)
            await self.api.apply_status(
                resources.MODEL_DEPLOYMENT,
                live,
                {"measured": status.as_written(new)},
                field_manager=names.MEASURED_FIELD_MANAGER,
            )
            memory = memory.wrote(new, now)
        self._memories[model] = memory
