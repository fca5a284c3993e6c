"""Fetching with the real huggingface_hub client from the demo hub over sockets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dev.hub import models
from rerank_runtime import model_files, plan, selection
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import Method, Options
from tests.rerank_runtime import faulty_hub
from tests.rerank_runtime.faulty_hub import REPO, FaultyHub, assert_complete, refused, run, settings

pytestmark = pytest.mark.slow

DEADLINE = 60.0
FILES = faulty_hub.model_files()
SECOND = faulty_hub.model_files(seed=1)


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    hub = FaultyHub(tmp_path_factory.mktemp("hub"))
    with faulty_hub.environment_kept(), hub.listening():
        hub.publish(FILES)
        hub.publish(SECOND, branch="v2")
        hub.publish(FILES, "acme/gated", gated=True)
        yield hub


@pytest.fixture
def hub(listening: FaultyHub) -> FaultyHub:
    listening.reset()
    return listening


def commit(hub: FaultyHub, branch: str = "main", repo: str = REPO) -> str:
    return hub.hub.repositories[repo].branches[branch]


def test_fetches_what_serving_needs(hub: FaultyHub, tmp_path: Path) -> None:
    fetched = hub.publish(models.minilm_files(), models.MINILM)
    status = run(settings(hub, tmp_path, repo=models.MINILM))
    model = tmp_path / "model"
    names = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert names == set(selection.select(models.MINILM_FILES))
    assert status.source is not None
    assert status.source.as_json() == {"repo": models.MINILM, "revision": fetched}
    assert status.download is not None
    assert status.download.bytes == status.download.total_bytes > 90_000_000
    decided = plan.plan(model_files.read(model), Options(Method.COSINE))
    assert (decided.context_length, decided.parameters) == (256, 22_713_728)


def test_the_source_is_written_down_with_sizes_and_hashes(hub: FaultyHub, tmp_path: Path) -> None:
    run(settings(hub, tmp_path))
    source = json.loads((tmp_path / "source.json").read_text())
    listed = {file.name: file for file in hub.hub.repositories[REPO].commits[commit(hub)]}
    assert (source["repo"], source["revision"], source["endpoint"]) == (REPO, commit(hub), hub.url)
    assert source["files"] == {
        name: {"size": listed[name].size, "hash": listed[name].oid} for name in selection.select(FILES)
    }


def test_branches_and_commits_are_resolved(hub: FaultyHub, tmp_path: Path) -> None:
    for revision, branch, files in (
        ("main", "main", FILES),
        ("v2", "v2", SECOND),
        (commit(hub), "main", FILES),
    ):
        status = run(settings(hub, tmp_path, revision=revision))
        assert status.source is not None
        assert status.source.revision == commit(hub, branch)
        assert_complete(tmp_path, files)
    # Of a store that is nobody else's, only what is in use is kept.
    assert len(list((tmp_path / "weights").glob("*/*"))) == 1


def test_a_second_run_downloads_nothing(hub: FaultyHub, tmp_path: Path) -> None:
    run(settings(hub, tmp_path))
    hub.seen.clear()
    run(settings(hub, tmp_path))
    assert hub.seen == []


def test_a_pinned_commit_that_is_there_needs_no_hub(
    hub: FaultyHub, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    pinned = commit(hub)
    run(settings(hub, tmp_path, revision=pinned))
    hub.faults.append(faulty_hub.answer(503, lambda _request: True))
    status = run(settings(hub, tmp_path, revision=pinned))
    assert status.source is not None
    assert status.source.revision == pinned
    assert status.download is not None
    assert status.download.bytes == status.download.total_bytes > 0
    assert_complete(tmp_path, FILES)


def test_python_files_come_only_where_they_may_run_and_never_into_anothers_folder(
    hub: FaultyHub, tmp_path: Path
) -> None:
    pinned = hub.publish(FILES | {"modeling_ranker.py": b"raise SystemExit\n"}, "acme/code")
    store = tmp_path / "store"
    for name, python in (("a", False), ("b", True)):
        run(settings(hub, tmp_path / name, repo="acme/code", revision=pinned, store=store, python=python))
        assert (tmp_path / name / "model" / "modeling_ranker.py").exists() is python


def test_hubs_do_not_vouch_for_one_another(hub: FaultyHub, tmp_path: Path) -> None:
    pinned = commit(hub)
    run(settings(hub, tmp_path, revision=pinned))
    hub.seen.clear()
    run(settings(hub, tmp_path, revision=pinned, endpoint=hub.url.replace("127.0.0.1", "localhost")))
    assert len(hub.starts()) == 1


def test_a_damaged_copy_is_mended_by_fetching_what_is_damaged(hub: FaultyHub, tmp_path: Path) -> None:
    run(settings(hub, tmp_path))
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    hub.seen.clear()
    run(settings(hub, tmp_path, revision=commit(hub)))
    assert [seen.name for seen in hub.seen] == ["model.safetensors"]
    assert_complete(tmp_path, FILES)


def test_a_directory_that_is_somebody_elses_is_left_alone(hub: FaultyHub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(Failure, match="no link: choose another directory"):
        run(settings(hub, tmp_path))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"repo": "demo/unknown"}, (Reason.REPOSITORY_NOT_FOUND, "tokenSecretRef")),
        (
            {"repo": "demo/unknown", "token": "hf_demo_reader"},
            (Reason.REPOSITORY_NOT_FOUND, "huggingFace.repo"),
        ),
        ({"revision": "v9"}, (Reason.REVISION_NOT_FOUND, "no revision v9")),
        ({"revision": "f" * 40}, (Reason.REVISION_NOT_FOUND, "no revision fff")),
        ({"repo": "acme/gated"}, (Reason.REPOSITORY_GATED, "set spec.model.huggingFace.tokenSecretRef")),
        ({"repo": "acme/gated", "token": "hf_demo_visitor"}, (Reason.REPOSITORY_GATED, "accept its terms")),
        ({"repo": "acme/gated", "token": "hf_wrong"}, (Reason.TOKEN_REJECTED, "rejected the token")),
        ({"repo": "no-slash"}, (Reason.INVALID_SOURCE, "org/name")),
        ({"repo": "../etc/passwd"}, (Reason.INVALID_SOURCE, "org/name")),
        ({"endpoint": "file:///etc"}, (Reason.INVALID_SOURCE, "https://")),
        ({"endpoint": "http://me:pw@hub"}, (Reason.INVALID_SOURCE, "no credentials")),
        ({"file": "*Q8_0.gguf"}, (Reason.INVALID_SOURCE, "no GGUF file")),
    ],
)
def test_refusals_name_the_way_out(
    hub: FaultyHub, tmp_path: Path, changes: dict[str, Any], expected: tuple[Reason, str]
) -> None:
    failure = refused(settings(hub, tmp_path, **changes))
    assert failure.reason == expected[0]
    assert expected[1] in failure.message
    assert not failure.retriable
    if "token" in changes:
        assert changes["token"] not in failure.message


def test_a_token_opens_a_gated_repository(hub: FaultyHub, tmp_path: Path) -> None:
    run(settings(hub, tmp_path, repo="acme/gated", token="hf_demo_reader"))
    assert_complete(tmp_path, FILES)


async def test_the_program_shows_its_progress(
    hub: FaultyHub, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    files = faulty_hub.model_files(floats=1_000_000)
    hub.publish(files, "acme/large")
    hub.hub.bytes_per_second = {"acme/large": 4_000_000}
    arguments = ("--repo", "acme/large", "--dir", str(tmp_path), "--endpoint", hub.url)
    program = await start_program(*arguments, "--status-port", str(port))
    seen: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE):
        while program.returncode is None:
            try:
                async with session.get(f"http://127.0.0.1:{port}/status") as response:
                    seen.append(await response.json())
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    assert program.returncode == 0
    sizes = [status["download"]["bytes"] for status in seen if "download" in status]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3
    assert any("etaSeconds" in status["download"] for status in seen if "download" in status)
    assert {status["phase"] for status in seen} == {"Downloading"}
    assert seen[-1]["source"] == {"repo": "acme/large", "revision": commit(hub, repo="acme/large")}


async def test_the_program_takes_the_pinned_revision_and_the_token_from_its_environment(
    hub: FaultyHub, tmp_path: Path
) -> None:
    pinned = commit(hub, repo="acme/gated")
    environment = {"RERANK_PINNED_REVISION": pinned, "HF_TOKEN": "hf_demo_reader"}
    arguments = ("--repo", "acme/gated", "--revision", "nowhere", "--dir", str(tmp_path / "pod"))
    places = ("--store", str(tmp_path / "store"), "--endpoint", hub.url, "--status-port", "0")
    program = await start_program(*arguments, *places, **environment)
    out, errors = await asyncio.wait_for(program.communicate(), DEADLINE)
    assert program.returncode == 0
    assert json.loads((tmp_path / "pod" / "source.json").read_text())["revision"] == pinned
    assert (tmp_path / "pod" / "model").resolve().is_relative_to(tmp_path / "store" / "acme--gated")
    assert b"hf_demo_reader" not in out + errors
    assert b"HTTP Request" not in out + errors


async def start_program(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
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
