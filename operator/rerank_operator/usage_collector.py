"""Brings what the gateways count into APIKey.status: asks each, adds up, writes. A task of the leader."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog
from pydantic import ValidationError

from rerank_api import names
from rerank_api.api_key import APIKey
from rerank_operator import resources, status, usage, usage_report
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.cluster import Cluster
from rerank_operator.gateways import Gateways
from rerank_operator.health import Metrics
from rerank_operator.resources import Object
from rerank_operator.usage_ledger import Ledger
from rerank_operator.usage_report import KeyRef, KeyReport

# While a gateway is about to go: it waits for its last counts to be saved.
_HURRIED_SECONDS: Final = 1.0
# So many writes at a time. They are not urgent, and the API server has other things to do.
_WRITERS: Final = 2
# More pages than any gateway has to tell.
_PAGES: Final = 1000

_log = structlog.get_logger()


@dataclass(slots=True)
class Collector:
    """One for the process. `poll_seconds`: how often each gateway is asked."""

    api: Cluster
    gateways: Gateways
    metrics: Metrics
    ledger: Ledger
    poll_seconds: float
    _process_at: dict[str, str] = field(default_factory=dict)
    _found: bool | None = None

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.collect()
            except Exception:  # noqa: BLE001  # whatever is wrong with usage must not stop models and keys
                _log.exception("usage could not be collected")
            await asyncio.sleep(_HURRIED_SECONDS if self.ledger.hurried else self.poll_seconds)

    async def collect(self, *, everything: bool = False) -> None:
        """Ask every gateway once and write what is due, or `everything` that is not written yet."""
        await self._ask_all()
        due = self.ledger.due(time.monotonic(), everything=everything)
        # Keys that still wait for their turn by then are due in the next round.
        end = time.monotonic() + self.poll_seconds
        try:
            async with asyncio.TaskGroup() as group:
                for part in range(_WRITERS):
                    group.create_task(self._write_all(due[part::_WRITERS], end))
        except* ApiError as errors:
            _log.warning("usage could not be written", error=str(errors.exceptions[0]))
        except* NotLeaderError:
            _log.warning("usage was not written: the lease is not held")
        self.metrics.usage_waiting.set(len(self.ledger))

    async def _ask_all(self) -> None:
        addresses = await self.gateways.addresses()
        if self._found is not bool(addresses):
            self._found = bool(addresses)
            _log.info("gateways found" if addresses else "no gateway found", name=self.gateways.host)
        # One that is leaving is asked to its end, whether DNS still knows it or not.
        leaving = {ip for ip, process in self._process_at.items() if self.ledger.is_leaving(process)}
        asked = sorted(addresses | leaving)
        answers = await asyncio.gather(*map(self._ask, asked))
        self._process_at = {ip: process for ip, process in self._process_at.items() if ip in asked}
        answered = {process for process in answers if process is not None}
        self.ledger.end_round(answered, time.monotonic(), complete=bool(asked) and None not in answers)
        self.metrics.gateways.set(len(answered))

    async def _ask(self, ip: str) -> str | None:
        """Take in all that is new at an address. Returns the process there, None when it did not tell all."""
        process = self._process_at.get(ip, "")
        for _ in range(_PAGES):
            heard, saved = self.ledger.position(process)
            # Another process that has the address now tells everything: `process` says who is meant.
            path = f"/usage?process={process}&since={heard}&saved={saved}"
            data = await self.gateways.ask(ip, path, limit=usage_report.SIZE_LIMIT_BYTES)
            report = None if data is None else usage_report.parse(data)
            if report is None:
                return None
            process = self._process_at[ip] = report.process
            self.ledger.hear(report, time.monotonic())
            if not report.more:
                return process
        return None

    async def _write_all(self, keys: Sequence[KeyRef], end: float) -> None:
        for key in keys:
            if time.monotonic() > end:
                return
            await self._write(key)

    async def _write(self, ref: KeyRef) -> None:
        """Add what is unsaved to one key.

        Raises:
            ApiError: the API server could not be asked.
        """
        reports, written = self.ledger.reports(ref), False
        live = await self.api.get(resources.API_KEY, ref.namespace, ref.name)
        if live is not None and live["metadata"]["uid"] == ref.uid:
            try:
                reports, written = await self._apply(live, reports)
            except ApiError as error:
                if error.conflict:
                    return  # it changed meanwhile: again in the next round
                if not (error.refused or error.ending or error.status == 404):
                    raise
                _log.warning("usage was refused", namespace=ref.namespace, name=ref.name, error=str(error))
            except ValidationError as error:
                _log.error(
                    "cannot read an APIKey",
                    namespace=ref.namespace,
                    name=ref.name,
                    errors=error.error_count(),
                )
        self.ledger.settle(ref, reports, time.monotonic(), written=written)

    async def _apply(
        self, live: Object, reports: Mapping[str, KeyReport]
    ) -> tuple[Mapping[str, KeyReport], bool]:
        """Those of the reports that the object holds now, and whether that took a write."""
        old = APIKey.parse(live).status
        rows = {process: report.rows for process, report in reports.items()}
        known = old.usage.gateways if old.usage else ()
        gone = {gateway.id for gateway in known if self.ledger.is_gone(gateway.id)}
        new = old.model_copy(
            update={
                "usage": usage.fold(old.usage, rows, gone),
                "last_used_time": usage.last_used(
                    old.last_used_time, [report.last_used for report in reports.values()], datetime.now(UTC)
                ),
            }
        )
        held = {name: reports[name] for name in reports.keys() - usage.left_out(new.usage, rows)}
        if new == old:
            return held, False
        written = status.as_written(new, only=usage.FIELDS)
        await self.api.apply_status(resources.API_KEY, live, written, field_manager=names.USAGE_FIELD_MANAGER)
        return held, True
