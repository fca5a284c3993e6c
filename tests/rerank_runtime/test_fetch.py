"""Fetching with the real huggingface_hub client from the demo hub over sockets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dev.hub import models, repository, server
from dev.hub.server import Hub
from rerank_runtime import fetch, model_files, plan, progress
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.status import Phase, Status

DEADLINE = 60.0


@pytest.fixture(scope="session")
def hub_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo hub's repositories."""
    root = tmp_path_factory.mktemp("hub")
    models.build(root)
    return root


class Served:
    """A hub that listens."""

    def __init__(self, hub: Hub, url: str) -> None:
        self.hub = hub
        self.url = url

    def commit(self, repo: str, branch: str = "main") -> str:
        return self.hub.repositories[repo].branches[branch]

    def count(self, text: str) -> int:
        return sum(n for request, n in self.hub.requests.items() if text in request)


@pytest.fixture
async def hub(hub_files: Path) -> AsyncIterator[Served]:
    made = Hub(repository.load(hub_files))
    runner = web.AppRunner(made.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Served(made, f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # fetch sets these for its process; here they must not outlive the test.
    for name in ("HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "10")


def settings(hub: Served, directory: Path, repo: str, **changes: Any) -> fetch.Settings:
    fixed: dict[str, Any] = {"revision": "main", "endpoint": hub.url, "patience": 3.0}
    return fetch.Settings(repo=repo, directory=directory, **(fixed | changes))


async def run(chosen: fetch.Settings) -> Status:
    status = Status(Phase.DOWNLOADING)
    await asyncio.to_thread(fetch.fetch, chosen, status)
    return status


async def refused(chosen: fetch.Settings) -> Failure:
    with pytest.raises(Failure) as refusal:
        await run(chosen)
    return refusal.value


async def test_fetches_what_serving_needs(hub: Served, tmp_path: Path) -> None:
    repo = "sentence-transformers/all-MiniLM-L6-v2"
    status = await run(settings(hub, tmp_path, repo))
    commit = hub.commit(repo)
    names = {
        p.relative_to(tmp_path / "model").as_posix() for p in (tmp_path / "model").rglob("*") if p.is_file()
    }
    assert {name for name in names if not name.startswith(".cache/")} == {
        "1_Pooling/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    assert json.loads((tmp_path / "source.json").read_text())["revision"] == commit
    assert status.source is not None
    assert status.source.as_json() == {"repo": repo, "revision": commit}
    assert status.download is not None
    assert status.download.bytes == status.download.total_bytes > 90_000_000
    files = model_files.read(tmp_path / "model")
    decided = plan.plan(files, plan.Options(plan.Method.COSINE))
    assert (decided.context_length, decided.parameters) == (256, 22_713_728)


async def test_branches_tags_and_commits_are_resolved(hub: Served, tmp_path: Path) -> None:
    repo = "demo/word-overlap"
    for revision, branch in (("main", "main"), ("v2", "v2"), (hub.commit(repo, "v2"), "v2")):
        status = await run(settings(hub, tmp_path, repo, revision=revision))
        assert status.source is not None
        assert status.source.revision == hub.commit(repo, branch)


async def test_a_second_run_downloads_nothing(hub: Served, tmp_path: Path) -> None:
    await run(settings(hub, tmp_path, "demo/word-overlap"))
    downloads = hub.count("GET /_lfs")
    await run(settings(hub, tmp_path, "demo/word-overlap"))
    assert hub.count("GET /_lfs") == downloads == 1


async def test_what_another_commit_left_is_removed(hub: Served, tmp_path: Path) -> None:
    await run(settings(hub, tmp_path, "sentence-transformers/all-MiniLM-L6-v2"))
    await run(settings(hub, tmp_path, "demo/word-overlap"))
    assert not (tmp_path / "model" / "modules.json").exists()
    assert model_files.read(tmp_path / "model").modules is None


async def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    hub: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[int] = []

    async def break_once(response: web.StreamResponse, path: Path, start: int, stop: int, limit: int) -> None:
        if path.name == "model.safetensors" and not broken:
            broken.append(start)
            await stream(response, path, start, start + 12_000_000, limit)
            raise ConnectionResetError
        await stream(response, path, start, stop, limit)

    stream = server._stream
    monkeypatch.setattr(server, "_stream", break_once)
    await run(settings(hub, tmp_path, "demo/word-overlap", patience=20.0))
    assert broken == [0]
    assert hub.count("/_lfs/{org}/{name}/{commit}/{path} 206") == 1
    assert model_files.read(tmp_path / "model").parameters > 4_000_000


async def test_a_killed_fetch_keeps_whole_files_and_leaves_no_litter(hub: Served, tmp_path: Path) -> None:
    repo = "demo/word-overlap"
    hub.hub.bytes_per_second = {repo: 8_000_000}
    program = await _program(
        "--repo", repo, "--dir", str(tmp_path), "--endpoint", hub.url, "--status-port", "0"
    )
    async with asyncio.timeout(DEADLINE):
        while progress.bytes_on_disk(tmp_path / "model", []) < 10_000_000:
            assert program.returncode is None
            await asyncio.sleep(0.05)
    program.kill()
    await program.wait()
    hub.hub.bytes_per_second = {}
    asked = hub.count("GET /{org}/{name}/resolve")
    await run(settings(hub, tmp_path, repo))
    assert model_files.read(tmp_path / "model").parameters > 4_000_000
    assert progress.bytes_on_disk(tmp_path / "model", []) == 0
    assert hub.count("GET /{org}/{name}/resolve") - asked < 5


async def test_a_damaged_copy_is_fetched_again(hub: Served, tmp_path: Path) -> None:
    await run(settings(hub, tmp_path, "demo/word-overlap"))
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    await run(settings(hub, tmp_path, "demo/word-overlap"))
    assert model_files.read(tmp_path / "model").parameters > 4_000_000


@pytest.mark.parametrize(
    ("repo", "changes", "expected"),
    [
        ("demo/unknown", {}, (Reason.REPOSITORY_NOT_FOUND, "tokenSecretRef")),
        ("demo/unknown", {"token": "hf_demo_reader"}, (Reason.REPOSITORY_NOT_FOUND, "huggingFace.repo")),
        ("demo/word-overlap", {"revision": "v9"}, (Reason.REVISION_NOT_FOUND, "no revision v9")),
        ("demo/word-overlap", {"revision": "f" * 40}, (Reason.REVISION_NOT_FOUND, "no revision fff")),
        ("demo/gated", {}, (Reason.REPOSITORY_GATED, "set spec.model.huggingFace.tokenSecretRef")),
        ("demo/gated", {"token": "hf_demo_visitor"}, (Reason.REPOSITORY_GATED, "accept its terms")),
        ("demo/gated", {"token": "hf_wrong"}, (Reason.TOKEN_REJECTED, "rejected the token")),
        ("demo/truncated", {}, (Reason.WEIGHTS_TRUNCATED, "5242880 bytes where its header says")),
        ("no-slash", {}, (Reason.INVALID_SOURCE, "org/name")),
        ("../etc/passwd", {}, (Reason.INVALID_SOURCE, "org/name")),
        ("demo/word-overlap", {"endpoint": "file:///etc"}, (Reason.INVALID_SOURCE, "https://")),
        ("demo/word-overlap", {"endpoint": "http://me:pw@hub"}, (Reason.INVALID_SOURCE, "no credentials")),
    ],
)
async def test_refusals_name_the_way_out(
    hub: Served, tmp_path: Path, repo: str, changes: dict[str, Any], expected: tuple[Reason, str]
) -> None:
    failure = await refused(settings(hub, tmp_path, repo, **changes))
    assert failure.reason == expected[0]
    assert expected[1] in failure.message
    assert not failure.retriable
    assert not (tmp_path / "source.json").exists()
    if "token" in changes:
        assert changes["token"] not in failure.message


async def test_a_token_opens_a_gated_repository(hub: Served, tmp_path: Path) -> None:
    await run(settings(hub, tmp_path, "demo/gated", token="hf_demo_reader"))
    assert (tmp_path / "source.json").exists()


async def test_no_hub_at_all(hub: Served, tmp_path: Path, free_port: Callable[[], int]) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    failure = await refused(settings(hub, tmp_path, "demo/word-overlap", endpoint=endpoint))
    assert failure.reason == Reason.HUB_UNREACHABLE
    assert failure.retriable
    assert endpoint in failure.message


async def test_a_hub_that_fails_for_a_moment_is_asked_again(hub: Served, tmp_path: Path) -> None:
    asked: list[int] = []
    original = hub.hub._info

    async def broken_once(request: web.Request) -> web.Response:
        asked.append(1)
        if len(asked) == 1:
            raise web.HTTPServiceUnavailable
        return await original(request)

    app = web.Application()
    app.router.add_get("/api/models/{org}/{name}/revision/{revision:.+}", broken_once)
    app.router.add_get("/{org}/{name}/resolve/{revision:[^/]+}/{path:.+}", hub.hub._resolve)
    app.router.add_get("/_lfs/{org}/{name}/{commit}/{path:.+}", hub.hub._large)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await run(settings(hub, tmp_path, "demo/word-overlap", endpoint=endpoint, patience=20.0))
    finally:
        await runner.cleanup()
    assert len(asked) > 1


async def test_a_full_disk(hub: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    failure = await refused(settings(hub, tmp_path, "demo/word-overlap"))
    assert failure.reason == Reason.DISK_FULL
    assert "the volume has 0.0 GiB left" in failure.message


async def test_the_program_shows_its_progress_and_leaves_last_words(
    hub: Served, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    repo, port = "demo/word-overlap", free_port()
    hub.hub.bytes_per_second = {repo: 6_000_000}
    arguments = ("--repo", repo, "--dir", str(tmp_path), "--endpoint", hub.url, "--status-port", str(port))
    program = await _program(*arguments)
    seen: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE):
        while program.returncode is None:
            try:
                async with session.get(f"http://127.0.0.1:{port}/status") as response:
                    seen.append(await response.json())
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    assert program.returncode == 0
    sizes = [status["download"]["bytes"] for status in seen if "download" in status]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3
    assert any("etaSeconds" in status["download"] for status in seen if "download" in status)
    assert {status["phase"] for status in seen} == {"Downloading"}
    assert seen[-1]["source"] == {"repo": repo, "revision": hub.commit(repo)}


async def test_the_program_takes_the_pinned_revision_and_the_token_from_its_environment(
    hub: Served, tmp_path: Path
) -> None:
    pinned = hub.commit("demo/gated")
    environment = {"RERANK_PINNED_REVISION": pinned, "HF_TOKEN": "hf_demo_reader"}
    arguments = (
        "--repo",
        "demo/gated",
        "--revision",
        "nowhere",
        "--dir",
        str(tmp_path),
        "--endpoint",
        hub.url,
    )
    program = await _program(*arguments, "--status-port", "0", **environment)
    out, errors = await asyncio.wait_for(program.communicate(), DEADLINE)
    assert program.returncode == 0
    assert json.loads((tmp_path / "source.json").read_text())["revision"] == pinned
    assert b"hf_demo_reader" not in out + errors
    assert b"HTTP Request" not in out + errors


async def _program(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    path = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from rerank_runtime.cli import main; main()",
        "fetch",
        *arguments,
        env=os.environ | path | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
