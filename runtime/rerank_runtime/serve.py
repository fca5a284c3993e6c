"""`rerank-runtime serve`: pid 1 of a model pod. Plans, starts vLLM, verifies it, watches it, drains it, ends
it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from rerank_runtime import (
    engine,
    engine_death,
    guard,
    memory_limit,
    model_files,
    prompt_tokens,
    status_server,
    termination,
    verification,
)
from rerank_runtime.engine_api import EngineApi
from rerank_runtime.engine_process import EngineProcess, reap
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.plan import Device, Method, Options, ServePlan, plan
from rerank_runtime.status import Phase, Source, Status

log = logging.getLogger(__name__)

# Seconds. The preStop hook and terminationGracePeriodSeconds (150) are longer than DRAIN_LIMIT + STOP_LIMIT.
DRAIN_LIMIT = 120.0
STOP_LIMIT = 15.0
VERIFY_INTERVAL = 60.0
HEALTH_INTERVAL = 5.0
# /health must fail this often in a row before /livez does: a long prompt on a busy CPU is no reason to
# restart.
HEALTH_FAILURES = 6
_POLL = 0.25


@dataclass(frozen=True)
class Settings:
    """What `rerank-runtime serve` is told."""

    directory: Path
    name: str
    method: Method = Method.AUTO
    device: Device = Device.CPU
    port: int = engine.PORT
    status_port: int = status_server.PORT
    verify_interval: float = VERIFY_INTERVAL
    termination_path: Path = termination.PATH


class Serve:
    """One serving container, from start to end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.status = Status(Phase.STARTING, source=read_source(settings.directory))
        self._token = secrets.token_urlsafe(32)
        self._api: EngineApi | None = None
        self._up = False
        self._stop = asyncio.Event()
        self._draining: asyncio.Task[int] | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or the engine's end; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        app = status_server.create_app(self.status, refresh=self._refresh, drain=self.drain)
        async with status_server.running(app, self.settings.status_port):
            try:
                return await self._serve()
            except Failure as failure:
                self.status.alive = False
                self.status.fail(failure)
                termination.write(failure, self.settings.termination_path)
                log.error("%s: %s", failure.reason, failure.message)  # noqa: TRY400 - a fact, no bug
                return 1

    async def drain(self) -> int:
        """Take no new requests and wait for those in flight; returns how many were left at the limit."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await asyncio.shield(self._draining)

    async def _serve(self) -> int:
        settings = self.settings
        files = await asyncio.to_thread(model_files.read, settings.directory)
        options = Options(settings.method, settings.device, memory_limit.read())
        self.status.plan = decided = plan(files, options)
        tokens = await asyncio.to_thread(
            prompt_tokens.expected, settings.directory, decided.method, verification.CASES
        )
        log.info("plan %s", json.dumps(decided.as_json()))
        kills = memory_limit.kills()
        async with EngineApi(settings.port, settings.name, self._token) as self._api:
            process = await self._start(decided)
            work = asyncio.create_task(self._watch(self._api, decided, tokens, process.pid))
            died = asyncio.create_task(process.wait())
            stopped = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait({work, died, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if self._stop.is_set():
                    return await self._end(process, died)
                if died.done():
                    raise engine_death.explain(
                        process.tail, died.result(), memory_kills=memory_limit.kills() - kills
                    )
                await work
                raise AssertionError("watching the engine never ends by itself")
            finally:
                process.kill()
                for task in (work, stopped):
                    task.cancel()
                await asyncio.gather(work, stopped, died, return_exceptions=True)

    async def _start(self, decided: ServePlan) -> EngineProcess:
        settings = self.settings
        # Without a backend token the guard lets everybody in: then nobody but this machine may come.
        host = "0.0.0.0" if os.environ.get(guard.TOKEN_HASH) else "127.0.0.1"  # noqa: S104 - the pod's address
        command = engine.command(
            decided,
            model=settings.directory,
            name=settings.name,
            device=settings.device,
            host=host,
            port=settings.port,
        )
        log.info("starting %s", " ".join(command))
        environment = engine.environment(os.environ, device=settings.device, internal_token=self._token)
        try:
            return await EngineProcess.start(command, environment)
        except OSError as error:
            raise Failure(Reason.ENGINE_FAILED, f"vLLM cannot be started: {error}.") from error

    async def _watch(self, api: EngineApi, decided: ServePlan, tokens: tuple[int, ...], pid: int) -> None:
        while not await api.healthy():
            reap(pid)
            await asyncio.sleep(_POLL)
        self._up = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._check_health(api, pid))
            group.create_task(self._become_ready(api, decided, tokens))

    async def _become_ready(self, api: EngineApi, decided: ServePlan, tokens: tuple[int, ...]) -> None:
        """Verify until it succeeds. A failure stays in the status meanwhile; a restart would not change
        it.
        """
        self._enter(Phase.VERIFYING)
        while True:
            if await self._verify(api, decided, tokens):
                break
            await asyncio.sleep(self.settings.verify_interval)
        self._enter(Phase.READY)
        log.info("ready: %s", json.dumps(self.status.as_json()))

    async def _verify(self, api: EngineApi, decided: ServePlan, tokens: tuple[int, ...]) -> bool:
        try:
            result = verification.judge(decided, await api.observe(tokens))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            what = f"{type(error).__name__} {error}".strip()
            result = verification.Result(
                Failure(Reason.ENGINE_ERROR, f"The engine does not answer as vLLM does: {what}.")
            )
        self.status.verification = result
        if result.failure is None:
            return True
        if self._draining is None:
            self.status.fail(result.failure)
        log.error("not verified: %s: %s", result.failure.reason, result.failure.message)
        return False

    async def _check_health(self, api: EngineApi, pid: int) -> None:
        failures = 0
        while True:
            await asyncio.sleep(HEALTH_INTERVAL)
            reap(pid)
            failures = 0 if await api.healthy() else failures + 1
            self.status.alive = failures < HEALTH_FAILURES
            if failures == HEALTH_FAILURES:
                log.error("the engine has not answered /health %s times in a row", failures)

    async def _end(self, process: EngineProcess, died: asyncio.Task[int]) -> int:
        """After SIGTERM: the last resort for requests in flight, for vLLM fails them when it shuts down."""
        left = await self.drain()
        if left:
            log.warning("ending with %s requests in flight", left)
        if self._up:
            process.terminate()
            await asyncio.wait({died}, timeout=STOP_LIMIT)
        # Else vLLM is still loading and would not listen; the caller kills it.
        return 0

    async def _drain(self) -> int:
        started = asyncio.get_running_loop().time()
        self._enter(Phase.DRAINING)
        state = await self._api.drain() if self._api else None
        while state and state.in_flight and asyncio.get_running_loop().time() - started < DRAIN_LIMIT:
            self.status.in_flight = state.in_flight
            await asyncio.sleep(_POLL)
            state = await self._api.state() if self._api else None
        self.status.in_flight = state.in_flight if state else 0
        log.info("drained, %s in flight", self.status.in_flight)
        return self.status.in_flight

    async def _refresh(self) -> None:
        if self._api and self.status.phase in (Phase.READY, Phase.DRAINING):
            state = await self._api.state()
            self.status.in_flight = state.in_flight if state else 0

    def _enter(self, phase: Phase) -> None:
        if self._draining is None or phase is Phase.DRAINING:
            self.status.enter(phase)


def read_source(directory: Path) -> Source | None:
    """Where the weights came from: `source.json` beside the model's directory, written by fetch."""
    try:
        content = json.loads((directory.parent / "source.json").read_bytes())
        return Source(str(content["repo"]), str(content["revision"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
