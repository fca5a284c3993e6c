"""pid 1 from start to end, around an engine that is a real process on real sockets (fake_vllm.py)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rerank_runtime import verification
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.plan import ServePlan
from rerank_runtime.serve import Serve, Settings
from tests.rerank_runtime.conftest import FakeVllm

DEADLINE = 60.0
TOKEN = "a backend token"


class Pod:
    """A running `serve`, and a client of its ports."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self.session = session
        self.serve = Serve(settings)
        self.done = asyncio.create_task(self.serve.run())

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(f"http://127.0.0.1:{self.settings.status_port}{path}") as response:
            return response.status, (await response.json() if path == "/status" else await response.text())

    async def rerank(self, documents: int = 2, **headers: str) -> aiohttp.ClientResponse:
        body = {"model": "m", "query": "slow panda bear", "documents": ["a panda bear"] * documents}
        url = f"http://127.0.0.1:{self.settings.port}/v1/rerank"
        response = await self.session.post(url, json=body, headers=headers)
        await response.read()
        return response

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The status once it fulfils a condition."""
        status: dict[str, Any] = {}
        async with asyncio.timeout(DEADLINE):
            while not self.done.done():
                try:
                    _, status = await self.get("/status")
                except aiohttp.ClientError:
                    status = {}
                if status and condition(status):
                    return status
                await asyncio.sleep(0.05)
        raise AssertionError(f"it ended with {self.done.result()}; last status {status}")

    async def phase(self, *phases: str) -> dict[str, Any]:
        return await self.until(lambda status: status["phase"] in phases)

    async def stop(self) -> int:
        self.serve._stop.set()
        return await asyncio.wait_for(self.done, DEADLINE)

    @property
    def last_words(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.settings.termination_path.read_text())
        return content


Start = Callable[..., Awaitable[Pod]]


@pytest.fixture
async def start(model: Path, tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Start]:
    pods: list[Pod] = []
    session = aiohttp.ClientSession()
    termination = tmp_path / "termination-log"
    termination.touch()

    async def begin(directory: Path = model, **settings: Any) -> Pod:
        fixed: dict[str, Any] = {
            "name": "m",
            "port": free_port(),
            "status_port": free_port(),
            "termination_path": termination,
        }
        pods.append(Pod(Settings(directory, **(fixed | settings)), session))
        return pods[-1]

    yield begin
    for pod in pods:
        if not pod.done.done():
            await pod.stop()
    await session.close()


async def test_becomes_ready_once_it_ranks_right(start: Start, fake_vllm: FakeVllm) -> None:
    pod = await start()
    status = await pod.phase("Ready")
    assert status["source"] == {"repo": "demo/word-overlap", "revision": "a" * 40}
    assert status["model"] == {
        "family": "bert",
        "architecture": "BertForSequenceClassification",
        "parameters": 390,
        "weightsBytes": (pod.settings.directory / "model.safetensors").stat().st_size,
        "contextLength": 512,
        "scoring": {"method": "CrossEncoder", "range": "[0,1]"},
    }
    assert status["verification"]["verified"] is True
    assert len(status["verification"]["cases"]) == 5
    assert status["inFlight"] == 0
    assert (await pod.get("/readyz"))[0] == 200
    assert (await pod.get("/livez"))[0] == 200
    assert (await pod.rerank()).status == 200
    assert await pod.stop() == 0
    assert pod.settings.termination_path.read_text() == ""


async def test_the_engine_is_offline_and_has_no_token_of_the_hub(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pod = await start()
    await pod.phase("Ready")
    environment = fake_vllm.seen["environment"]
    assert environment["HF_TOKEN"] is None
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == "75"
    arguments = fake_vllm.seen["arguments"]
    assert arguments[:2] == ["serve", str(pod.settings.directory)]
    assert "--host=127.0.0.1" in arguments
    assert environment["RERANK_INTERNAL_TOKEN"] not in " ".join(arguments)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"scores": "inverted"}, "ScoresInverted"),
        ({"scores": "constant"}, "ScoresConstant"),
        ({"scores": "nan"}, "ScoresNotFinite"),
        ({"routes": "embed"}, "WrongRoutes"),
        ({"extra_tokens": 1}, "PromptTokensDiffer"),
    ],
)
async def test_wrong_scores_keep_it_unready_and_alive(
    start: Start, fake_vllm: FakeVllm, behaviour: dict[str, Any], reason: str
) -> None:
    fake_vllm.behave(**behaviour)
    pod = await start()
    status = await pod.phase("Failed")
    assert status["reason"] == status["verification"]["reason"] == reason
    assert status["verification"]["verified"] is False
    assert (await pod.get("/readyz"))[0] == 503
    assert (await pod.get("/livez"))[0] == 200
    assert await pod.stop() == 0


async def test_verification_is_repeated_and_can_succeed(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []
    right = verification.judge

    def wrong_once(plan: ServePlan, seen: verification.Observation) -> verification.Result:
        judged.append(seen)
        if len(judged) > 1:
            return right(plan, seen)
        return verification.Result(Failure(Reason.SCORES_INVERTED, "for once"))

    monkeypatch.setattr(verification, "judge", wrong_once)
    pod = await start(verify_interval=0.2)
    status = await pod.phase("Ready")
    assert len(judged) == 2
    assert status["reason"] == status["message"] == ""


async def test_a_refused_plan_ends_the_container_with_its_reason(start: Start, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2LMHeadModel"]}))
    pod = await start()
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "NotAReranker"
    assert "GPT2LMHeadModel" in pod.last_words["message"]
    assert pod.last_words["retriable"] is False


async def test_an_engine_that_dies_at_start_is_explained(start: Start, fake_vllm: FakeVllm) -> None:
    fake_vllm.behave(
        die="(Worker pid=9) ERROR 11-22 19:21:06 [x.py:1] torch.OutOfMemoryError: CUDA out of memory."
    )
    pod = await start()
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "GpuOutOfMemory"


async def test_an_engine_that_is_killed_ends_the_container(start: Start, fake_vllm: FakeVllm) -> None:
    pod = await start()
    await pod.phase("Ready")
    os.kill(fake_vllm.seen["pid"], signal.SIGKILL)
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words == {
        "reason": "EngineFailed",
        "message": "The engine ended with signal 9: its log does not say why.",
        "retriable": True,
    }


async def test_no_vllm_to_start(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    pod = await start()
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "EngineFailed"


async def test_draining_waits_for_requests_in_flight_and_refuses_new_ones(
    start: Start, fake_vllm: FakeVllm
) -> None:
    fake_vllm.behave(delay=1.0)
    pod = await start()
    await pod.phase("Ready")
    running = [asyncio.create_task(pod.rerank()) for _ in range(3)]
    await pod.until(lambda status: status["inFlight"] == 3)
    drained = asyncio.create_task(_drain(pod))
    await pod.phase("Draining")
    assert (await pod.get("/readyz"))[0] == 503
    refused = await pod.rerank()
    assert refused.status == 503
    assert refused.headers["X-Rerank-Draining"] == "true"
    assert not drained.done()
    assert await drained == {"inFlight": 0}
    assert [(await task).status for task in running] == [200, 200, 200]
    assert await pod.stop() == 0


async def test_sigterm_drains_too(start: Start, fake_vllm: FakeVllm) -> None:
    fake_vllm.behave(delay=1.0)
    pod = await start()
    await pod.phase("Ready")
    running = asyncio.create_task(pod.rerank())
    await pod.until(lambda status: status["inFlight"] == 1)
    assert await pod.stop() == 0
    assert (await running).status == 200


async def test_an_engine_that_still_loads_is_ended_at_once(start: Start, fake_vllm: FakeVllm) -> None:
    fake_vllm.behave(deaf=True)
    pod = await start()
    await pod.phase("Starting")
    async with asyncio.timeout(10):
        assert await pod.stop() == 0


async def test_with_a_token_hash_the_engine_listens_to_all_and_admits_few(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_BACKEND_TOKEN_SHA256", hashlib.sha256(TOKEN.encode()).hexdigest())
    pod = await start()
    await pod.phase("Ready")
    assert "--host=0.0.0.0" in fake_vllm.seen["arguments"]
    assert (await pod.rerank()).status == 401
    assert (await pod.rerank(Authorization=f"Bearer {TOKEN}")).status == 200


async def _drain(pod: Pod) -> Any:
    async with pod.session.post(f"http://127.0.0.1:{pod.settings.status_port}/drain") as response:
        return await response.json()


async def test_the_program_serves_drains_and_ends(
    model: Path, fake_vllm: FakeVllm, free_port: Callable[[], int]
) -> None:
    port, status_port = free_port(), free_port()
    async with _program(
        "serve", str(model), "--name=m", f"--port={port}", f"--status-port={status_port}"
    ) as program:
        async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE):
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{status_port}/readyz") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientError:
                    assert program.returncode is None
                await asyncio.sleep(0.1)
        async with _program("drain", f"--status-port={status_port}") as drain:
            out, _ = await drain.communicate()
        assert (drain.returncode, out) == (0, b"drained, 0 in flight\n")
        program.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(program.wait(), DEADLINE) == 0


async def test_draining_without_a_pod_fails(free_port: Callable[[], int]) -> None:
    async with _program("drain", f"--status-port={free_port()}") as drain:
        _, errors = await drain.communicate()
    assert drain.returncode == 1
    assert b"does not answer" in errors


@asynccontextmanager
async def _program(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from rerank_runtime.cli import main; main()",
        *arguments,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
