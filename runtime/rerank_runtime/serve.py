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
from dataclasses import dataclass, field, replace
from pathlib import Path

from rerank_runtime import (
    engine,
    engine_death,
    expectation,
    gpu_memory,
    guard,
    identity,
    intake,
    memory_limit,
    model_files,
    prompt_pieces,
    status_server,
    termination,
    verification,
    workspace,
)
from rerank_runtime.engine_api import EngineApi
from rerank_runtime.engine_process import EngineProcess
from rerank_runtime.engine_watch import EngineWatch, Patience
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import Device, Options
from rerank_runtime.plan import plan
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.stall import Stall
from rerank_runtime.status import Phase, Source, Status
from rerank_runtime.verifier import Intervals, Verifier

log = logging.getLogger(__name__)

# Seconds. The preStop hook and terminationGracePeriodSeconds (150) are longer than DRAIN_LIMIT + STOP_LIMIT.
DRAIN_LIMIT = 120.0
STOP_LIMIT = 15.0
_POLL = 0.25


@dataclass(frozen=True)
class Settings:
    """What `rerank-runtime serve` is told. What the container has is added to `options` at the start."""

    directory: Path
    name: str
    options: Options = field(default_factory=Options)
    engine_args: tuple[str, ...] = ()
    verification: verification.Settings = field(default_factory=verification.Settings)
    port: int = engine.PORT
    status_port: int = status_server.PORT
    intervals: Intervals = field(default_factory=Intervals)
    patience: Patience = field(default_factory=Patience)
    termination_path: Path = termination.PATH


class Serve:
    """One serving container, from start to end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.status = Status(Phase.STARTING, source=Source.read(settings.directory.parent / "source.json"))
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
                with workspace.workspace() as directory:
                    return await self._serve(directory)
            except Failure as failure:
                log.error("%s: %s", failure.reason, failure.message)  # noqa: TRY400 - a fact, no bug
                return self._end_with(failure)
            except Exception as error:
                log.exception("the runtime itself failed")
                what = f"The runtime itself failed: {type(error).__name__} {error}".rstrip() + "."
                return self._end_with(Failure(Reason.INTERNAL_ERROR, what, retriable=True))

    async def drain(self) -> int:
        """Take no new requests and wait for those in flight; returns how many were left at the limit."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await asyncio.shield(self._draining)

    def _end_with(self, failure: Failure) -> int:
        self.status.alive = False
        self.status.fail(failure)
        termination.write(failure, self.settings.termination_path)
        return 1

    async def _serve(self, directory: Path) -> int:
        settings = self.settings
        files = await asyncio.to_thread(model_files.read, settings.directory)
        device = settings.options.device
        gpus = await asyncio.to_thread(gpu_memory.read) if device is Device.CUDA else None
        options = replace(
            settings.options,
            memory_limit=memory_limit.read(),
            gpus=gpus.number if gpus else None,
            gpu_memory=gpus.memory if gpus else None,
            gpu_capability=gpus.capability if gpus else None,
        )
        self.status.plan = decided = plan(files, options)
        tokenizer = None
        if prompt_pieces.wanted(decided.template):
            tokenizer = prompt_pieces.write_tokenizer(settings.directory, directory)
        expected = await asyncio.to_thread(
            expectation.of_built_in_cases, tokenizer or settings.directory, decided
        )
        log.info("plan %s", json.dumps(decided.as_json()))
        template = None
        if decided.template is not None:
            template = workspace.write(directory / "template.jinja", decided.template)
        kills = memory_limit.kills()
        async with EngineApi(settings.port, settings.name, self._token) as self._api:
            process = await self._start(decided, directory, template, tokenizer)
            stall = Stall(self._api, process.pid, device, settings.patience)
            verifier = Verifier(
                self._api,
                decided,
                settings.verification,
                expected,
                template=template,
                status=self.status,
                intervals=settings.intervals,
                stall=stall,
            )
            watch = EngineWatch(self._api, process, settings.patience)
            work = asyncio.create_task(self._watch(watch, verifier, stall))
            died = asyncio.create_task(process.wait())
            stopped = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait({work, died, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if self._stop.is_set():
                    return await self._end(process, died)
                if died.done():
                    raise engine_death.explain(
                        process.tail,
                        died.result(),
                        memory_kills=memory_limit.kills() - kills,
                        serving=self._up,
                    )
                await work
                raise AssertionError("watching the engine never ends by itself")
            finally:
                process.kill()
                for task in (work, stopped):
                    task.cancel()
                await asyncio.gather(work, stopped, died, return_exceptions=True)

    async def _start(
        self, decided: ServePlan, directory: Path, template: Path | None, tokenizer: Path | None
    ) -> EngineProcess:
        settings = self.settings
        served = identity.digest(decided, self.status.source, settings.directory, settings.engine_args)
        self.status.identity = served
        told = intake.IntakeSettings.of(decided, tokenizer or settings.directory, template, served)
        intake_path = workspace.write(directory / "intake.json", told.to_json())
        # Without a backend token the guard lets everybody in: then nobody but this machine may come.
        host = "0.0.0.0" if os.environ.get(guard.TOKEN_HASH) else "127.0.0.1"  # noqa: S104 - the pod's address
        command = engine.command(
            decided,
            model=settings.directory,
            name=settings.name,
            device=settings.options.device,
            host=host,
            port=settings.port,
            template_path=template,
            tokenizer=tokenizer,
            extra=settings.engine_args,
        )
        log.info("starting %s", " ".join(command))
        environment = engine.environment(
            os.environ, device=settings.options.device, internal_token=self._token
        ) | {intake.SETTINGS: str(intake_path)}
        try:
            return await EngineProcess.start(command, environment)
        except OSError as error:
            raise Failure(Reason.ENGINE_FAILED, f"vLLM cannot be started: {error}.") from error

    async def _watch(self, watch: EngineWatch, verifier: Verifier, stall: Stall) -> None:
        await watch.until_listening()
        self._up = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(watch.check_health(verifier.look_again))
                group.create_task(stall.run())
                group.create_task(verifier.run())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

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
        self.status.enter(Phase.DRAINING)
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
