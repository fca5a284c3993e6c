"""pid 1 from start to end, around an engine that is a real process on real sockets (fake_vllm.py)."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rerank_runtime import engine_api, engine_watch
from rerank_runtime import plan as planning
from rerank_runtime import serve as serving
from rerank_runtime.chat_template import quote
from rerank_runtime.engine_watch import Patience
from rerank_runtime.intake import IntakeSettings
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import OnOverflow, Options
from rerank_runtime.prompt_pieces import SEAM
from rerank_runtime.serve import Serve, Settings
from rerank_runtime.serve_plan import ServePlan
from rerank_runtime.verification import Case, Mode
from rerank_runtime.verification import Settings as Verification
from rerank_runtime.verification.cases import BUILT_IN
from rerank_runtime.verifier import Intervals
from tests.rerank_runtime.conftest import FakeVllm

pytestmark = pytest.mark.slow

DEADLINE = 60.0
TOKEN = "a backend token"
# Rounds of verification in quick succession.
OFTEN = Intervals(again=0.2, retry=0.2, confirm=0.05, spacing=0.05)


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
        "prefixCaching": False,
        "dtype": "float32",
        "memoryBytes": status["model"]["memoryBytes"],
        "remoteCode": False,
        "scoring": {
            "method": "CrossEncoder",
            "range": "[0,1]",
            "planDigest": status["model"]["scoring"]["planDigest"],
            "pointwise": True,
        },
        "truncation": {"onOverflow": "Truncate"},
    }
    assert status["verification"]["verified"] is True
    assert status["verification"]["mode"] == "Required"
    assert datetime.fromisoformat(status["verification"]["checkedAt"]) <= datetime.now(UTC)
    assert len(status["verification"]["cases"]) == len(BUILT_IN)
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
        ({"scores": "saturated"}, "ScoresSaturated"),
        ({"scores": "nan"}, "ScoresNotFinite"),
        ({"broken": True}, "EngineError"),
        ({"routes": "embed"}, "WrongRoutes"),
        ({"routes": "none"}, "WrongRoutes"),
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


async def test_a_model_that_fails_later_becomes_unready_and_ready_again(
    start: Start, fake_vllm: FakeVllm
) -> None:
    pod = await start(intervals=OFTEN)
    first = await pod.phase("Ready")
    fake_vllm.behave(scores="inverted")
    status = await pod.phase("Failed")
    assert status["reason"] == status["verification"]["reason"] == "ScoresInverted"
    assert status["verification"]["verified"] is False
    assert (await pod.get("/readyz"))[0] == 503
    assert (await pod.get("/livez"))[0] == 200
    fake_vllm.behave()
    status = await pod.phase("Ready")
    assert status["reason"] == status["message"] == ""
    assert status["verification"]["verified"] is True
    assert len(status["verification"]["cases"]) == len(first["verification"]["cases"])


async def test_one_bad_round_is_confirmed_before_it_counts(
    start: Start, fake_vllm: FakeVllm, caplog: pytest.LogCaptureFixture
) -> None:
    pod = await start(intervals=replace(OFTEN, confirm=1.0))
    checked = (await pod.phase("Ready"))["verification"]["checkedAt"]
    fake_vllm.behave(scores="inverted")
    await _logged(caplog, "one round failed")
    fake_vllm.behave()
    # The confirming round passes: it is the next one that is shown.
    status = await pod.until(lambda found: found["verification"]["checkedAt"] != checked)
    assert (status["phase"], status["verification"]["verified"]) == ("Ready", True)
    assert "not verified" not in caplog.text


async def test_an_error_of_the_engine_is_followed_by_a_round(
    start: Start, fake_vllm: FakeVllm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_watch, "HEALTH_INTERVAL", 0.1)
    pod = await start(intervals=replace(OFTEN, again=3600.0))
    await pod.phase("Ready")
    fake_vllm.behave(broken=True)
    assert (await pod.rerank()).status == 500
    status = await pod.phase("Failed")
    assert status["reason"] == "EngineError"
    assert "500" in status["message"]


async def test_reported_only_it_serves_all_the_same(start: Start, fake_vllm: FakeVllm) -> None:
    fake_vllm.behave(scores="inverted")
    pod = await start(verification=Verification(Mode.REPORT))
    status = await pod.phase("Ready")
    assert status["verification"]["mode"] == "Report"
    assert status["verification"]["verified"] is False
    assert status["verification"]["reason"] == "ScoresInverted"
    assert (await pod.get("/readyz"))[0] == 200


async def test_switched_off_nothing_is_asked(start: Start, fake_vllm: FakeVllm) -> None:
    fake_vllm.behave(broken=True)
    pod = await start(verification=Verification(Mode.OFF))
    status = await pod.phase("Ready")
    assert status["verification"]["mode"] == "Off"
    assert status["verification"]["verified"] is False
    assert status["verification"]["reason"] == ""


async def test_a_users_own_cases_must_hold(start: Start, fake_vllm: FakeVllm) -> None:
    own = Case("panda bear", "nothing in common", "a panda bear")
    pod = await start(verification=Verification(Mode.REQUIRED, (own,)))
    status = await pod.phase("Failed")
    assert status["reason"] == "ScoresInverted"
    assert "1 of 1 in spec.scoring.verification.cases" in status["message"]
    assert status["verification"]["cases"][0] == {"query": "panda bear", "relevant": 0.0, "irrelevant": 1.0}


async def test_the_template_and_the_limits_reach_the_engine(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "find answers: {{ messages[0].content }}: {{ messages[1].content }}\n\n"
    monkeypatch.setattr(serving, "plan", _planned_with(template=template, instruction="find answers"))
    pod = await start(options=Options(on_overflow=OnOverflow.REJECT, max_tokens_per_document=100))
    status = await pod.phase("Ready")
    scoring = status["model"]["scoring"]
    assert scoring["templateSha256"] == hashlib.sha256(template.encode()).hexdigest()
    assert scoring["instruction"] == "find answers"
    path = _template_of(fake_vllm)
    assert path.read_text() == template
    assert (_mode(path), _mode(path.parent)) == (0o600, 0o700)
    told = IntakeSettings.from_json(_text(fake_vllm.seen["environment"]["RERANK_INTAKE"]))
    assert told.template_path == path
    # What each answer carries is what the status tells.
    assert told.identity == scoring["planDigest"]
    assert len(told.identity) == 32
    assert told.directory == pod.settings.directory
    assert await pod.stop() == 0
    assert not await asyncio.to_thread(path.exists)


async def test_a_prompt_in_pieces_is_counted_cut_and_served_with_a_tokenizer_that_splits_there(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{{ messages[0].content }}{{ '\\ufdd0' }}{{ messages[1].content }}"
    monkeypatch.setattr(serving, "plan", _planned_with(template=template))
    pod = await start()
    await pod.phase("Ready")
    [flag] = [a for a in fake_vllm.seen["arguments"] if a.startswith("--tokenizer=")]
    directory = Path(flag.removeprefix("--tokenizer="))
    steps = json.loads(_text(str(directory / "tokenizer.json")))["pre_tokenizer"]["pretokenizers"]
    assert steps[0]["pattern"] == {"String": SEAM}
    told = IntakeSettings.from_json(_text(fake_vllm.seen["environment"]["RERANK_INTAKE"]))
    assert told.directory == directory
    assert await pod.stop() == 0
    assert not await asyncio.to_thread(directory.exists)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"instruction": ""}, "InstructionIgnored"),
        ({"instruction": "find other things"}, "PromptTokensDiffer"),
    ],
)
async def test_a_prompt_without_the_instruction_is_seen(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch, behaviour: dict[str, Any], reason: str
) -> None:
    template = (
        f"{{%- set d = {quote('find answers')} -%}}{{{{ instruction if instruction is defined else d }}}}"
        "{{ messages[0].content }}{{ messages[1].content }}"
    )
    monkeypatch.setattr(serving, "plan", _planned_with(template=template, instruction="find answers"))
    fake_vllm.behave(**behaviour)
    pod = await start()
    assert (await pod.phase("Failed"))["reason"] == reason


async def test_a_template_that_is_changed_in_the_container_is_seen(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{{ messages[0].content }}: {{ messages[1].content }}\n\n"
    monkeypatch.setattr(serving, "plan", _planned_with(template=template))
    pod = await start(intervals=OFTEN)
    await pod.phase("Ready")
    path = _template_of(fake_vllm)
    path.write_text(template.rstrip())
    assert (await pod.phase("Failed"))["reason"] == "TemplateDiffers"


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


async def test_an_engine_that_hangs_at_start_is_ended_and_explained(
    start: Start, fake_vllm: FakeVllm
) -> None:
    fake_vllm.behave(deaf=True)
    pod = await start(patience=Patience(start=2.0))
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "EngineHung"
    assert pod.last_words["retriable"] is True
    assert "waiting for a lock" in pod.last_words["message"]
    with pytest.raises(ProcessLookupError):
        os.kill(fake_vllm.seen["pid"], 0)


async def test_an_engine_that_leaves_requests_unanswered_is_ended_and_explained(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_api, "REQUEST_TIMEOUT", 0.5)
    pod = await start(intervals=OFTEN)
    await pod.phase("Ready")
    fake_vllm.behave(stuck=True)
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "EngineHung"
    assert "has not answered two short texts" in pod.last_words["message"]


async def test_a_busy_engine_stays_ready_for_long(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_api, "REQUEST_TIMEOUT", 0.5)
    pod = await start(intervals=replace(OFTEN, hang=6.0))
    await pod.phase("Ready")
    fake_vllm.behave(stuck=True, busy=True)
    await _logged(caplog, "did not answer a verification request in time", times=4)
    assert (await pod.get("/readyz"))[0] == 200
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "EngineHung"


async def test_an_engine_that_is_stuck_with_requests_is_ended_and_explained(
    start: Start, fake_vllm: FakeVllm
) -> None:
    pod = await start(patience=Patience(work=2.0, answer=1.0))
    await pod.phase("Ready")
    fake_vllm.behave(stuck=True)
    waiting = asyncio.create_task(pod.rerank())
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "EngineHung"
    assert "with requests in flight it has finished no text" in pod.last_words["message"]
    with pytest.raises(aiohttp.ClientError):
        await waiting


async def test_a_sender_that_is_slow_ends_nothing(
    start: Start, fake_vllm: FakeVllm, caplog: pytest.LogCaptureFixture
) -> None:
    pod = await start(patience=Patience(work=1.0, answer=5.0))
    await pod.phase("Ready")
    _, writer = await asyncio.open_connection("127.0.0.1", pod.settings.port)
    writer.write(b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    await pod.until(lambda status: status["inFlight"] == 1)
    await _logged(caplog, "does the engine answer?", times=2)
    assert (await pod.get("/readyz"))[0] == 200
    writer.close()
    await writer.wait_closed()


async def test_an_engine_whose_health_is_silent_is_ended_and_explained(
    start: Start, fake_vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_api, "HEALTH_TIMEOUT", 0.3)
    pod = await start(patience=Patience(health=1.5))
    await pod.phase("Ready")
    fake_vllm.behave(sick=True)
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "EngineHung"
    assert "/health" in pod.last_words["message"]


async def test_a_tokenizer_that_is_none_is_refused(start: Start, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Nonsense"}}')
    pod = await start()
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "TokenizerInvalid"


async def test_a_full_disk_is_named(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rerank_runtime.workspace.tempfile.TemporaryDirectory", full)
    pod = await start()
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "DiskFull"


async def test_a_fault_of_the_runtime_itself_leaves_a_reason(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> ServePlan:
        raise ZeroDivisionError("for once")

    monkeypatch.setattr(serving, "plan", broken)
    pod = await start()
    assert await asyncio.wait_for(pod.done, DEADLINE) == 1
    assert pod.last_words["reason"] == "InternalError"
    assert "ZeroDivisionError for once" in pod.last_words["message"]


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


def _planned_with(**changes: Any) -> Callable[[ModelFiles, Options], ServePlan]:
    """The plan of a model with something of another family's."""

    def decide(files: ModelFiles, options: Options) -> ServePlan:
        return replace(planning.plan(files, options), **changes)

    return decide


def _template_of(fake_vllm: FakeVllm) -> Path:
    [flag] = [a for a in fake_vllm.seen["arguments"] if a.startswith("--chat-template=")]
    return Path(flag.partition("=")[2])


def _text(path: str) -> str:
    return Path(path).read_text()


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def _logged(caplog: pytest.LogCaptureFixture, text: str, *, times: int = 1) -> None:
    async with asyncio.timeout(DEADLINE):
        while caplog.text.count(text) < times:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.02)


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
