"""When to verify, and what follows: at start until it passes, then on a schedule and after errors.

Used by serve. What is asked and how it is judged is rerank_runtime.verification's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from rerank_runtime.engine_api import EngineApi
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.stall import Stall
from rerank_runtime.status import Phase, Status
from rerank_runtime.verification import cases
from rerank_runtime.verification.cases import Case
from rerank_runtime.verification.observation import Answer, Expected, Observation
from rerank_runtime.verification.settings import Mode, Settings
from rerank_runtime.verification.verdict import Result, judge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intervals:
    """Seconds between rounds.

    Args:
        again: From a round that passed to the next; a fifth more or less, so that replicas do not march in
            step.
        retry: From a round that failed to the next; doubled each time, up to `again`.
        confirm: From the first failure of a model that passed before to the round that confirms it.
        spacing: Least time between two rounds that errors of the engine call for.
        hang: How long a busy engine may leave verification without an answer. Under load a request waits
            behind others; nothing that works keeps one of two short texts for so long.
    """

    again: float = 600.0
    retry: float = 60.0
    confirm: float = 5.0
    spacing: float = 30.0
    hang: float = 600.0


class Verifier:
    """Verifies one engine for as long as it runs.

    Args:
        api: The engine.
        plan: How it is to serve.
        settings: What the ModelDeployment asks for.
        expected: Prompt tokens of the built-in cases.
        template: The file that the engine was handed, if it was.
        status: Where the result is shown.
        intervals: The schedule.
        stall: Tells whether the engine gets on with its work.
    """

    def __init__(
        self,
        api: EngineApi,
        plan: ServePlan,
        settings: Settings,
        expected: Mapping[Case, Expected],
        *,
        template: Path | None,
        status: Status,
        intervals: Intervals,
        stall: Stall,
    ) -> None:
        self._api = api
        self._plan = plan
        self._settings = settings
        self._expected = expected
        self._template = template
        self._status = status
        self._intervals = intervals
        self._stall = stall
        self._answers: tuple[Answer, ...] = ()
        self._unanswered_since: float | None = None
        self._unanswered_idle = 0
        self._wanted = asyncio.Event()

    def look_again(self, why: str) -> None:
        """Verify soon, because something went wrong in the engine."""
        if not self._wanted.is_set():
            log.info("verifying again: %s", why)
            self._wanted.set()

    async def run(self) -> None:
        """Verify until cancelled; returns at once where verification is off.

        Raises:
            Failure: `EngineHung` where the engine does not answer at all any more.
        """
        if self._settings.mode is Mode.OFF:
            self._status.verification = Result(mode=Mode.OFF)
            self._enter(Phase.READY)
            return
        self._enter(Phase.VERIFYING)
        passing, retry, number = False, self._intervals.retry, 0
        while True:
            result = await self._round(None if not passing else number)
            if result.failure and passing:
                log.warning("one round failed: %s", result.failure.message)
                await asyncio.sleep(self._intervals.confirm)
                result = await self._round(None)
            self._show(result)
            passing, number = result.verified, number + 1
            if passing or self._settings.mode is Mode.REPORT:
                retry = self._intervals.retry
                await self._pause(self._intervals.again * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            else:
                await self._pause(retry)
                retry = min(2 * retry, self._intervals.again)

    async def _round(self, number: int | None) -> Result:
        """A quick round with a number, or a full one without; repeated until the engine answers it."""
        while True:
            begun, worked_since = asyncio.get_running_loop().time(), await self._stall.begin()
            try:
                seen = await self._observe(number)
            except TimeoutError:
                await self._unanswered(begun, worked=await worked_since())
                continue
            except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
                what = f"{type(error).__name__} {error}".strip()
                message = f"The engine does not answer as vLLM does: {what}."
                failure = Failure(Reason.ENGINE_ERROR, message, retriable=True)
                result = Result(failure, (), self._settings.mode, _now())
            else:
                result = judge(self._plan, seen, mode=self._settings.mode, checked_at=_now())
            self._unanswered_since, self._unanswered_idle = None, 0
            return result

    async def _observe(self, number: int | None) -> Observation:
        own = self._settings.cases
        surroundings = await self._api.surroundings() if number is None else None
        asked = cases.full(own) if number is None else cases.quick(own, number)
        answers = tuple([await self._api.ask(case, self._expected.get(case)) for case in asked])
        return Observation(answers, await asyncio.to_thread(self._template_sha256), surroundings)

    async def _unanswered(self, begun: float, *, worked: bool) -> None:
        """One round ran out of time. A busy engine does that too, so it says nothing about the scores; one
        that did nothing all the while is asked once more.
        """
        self._unanswered_since = self._unanswered_since or begun
        self._unanswered_idle = 0 if worked else self._unanswered_idle + 1
        waited = asyncio.get_running_loop().time() - self._unanswered_since
        if waited >= self._intervals.hang or self._unanswered_idle > 1:
            raise Failure(
                Reason.ENGINE_HUNG,
                f"The engine says that it is healthy, but has not answered two short texts for "
                f"{waited:.0f} seconds. It is started again.",
                retriable=True,
            )
        log.warning("the engine did not answer a verification request in time")
        await asyncio.sleep(self._intervals.confirm)

    def _template_sha256(self) -> str | None:
        if self._template is None:
            return None
        try:
            return hashlib.sha256(self._template.read_bytes()).hexdigest()
        except OSError:
            return ""

    def _show(self, result: Result) -> None:
        self._answers = result.with_earlier(self._answers)
        self._status.verification = result = Result(
            result.failure, self._answers, result.mode, result.checked_at
        )
        if result.failure:
            log.error("not verified: %s: %s", result.failure.reason, result.failure.message)
            if self._settings.mode is Mode.REQUIRED:
                if self._status.phase is not Phase.DRAINING:
                    self._status.fail(result.failure)
                return
        if self._status.phase is not Phase.READY:
            self._enter(Phase.READY)
            log.info("ready: %s", json.dumps(self._status.as_json()))

    def _enter(self, phase: Phase) -> None:
        if self._status.phase is not Phase.DRAINING:
            self._status.enter(phase)

    async def _pause(self, seconds: float) -> None:
        self._wanted.clear()
        await asyncio.sleep(min(seconds, self._intervals.spacing))
        try:
            async with asyncio.timeout(max(0.0, seconds - self._intervals.spacing)):
                await self._wanted.wait()
        except TimeoutError:
            pass


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
