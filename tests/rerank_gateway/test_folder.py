"""The folder as a source, and the program that reads it."""

import asyncio
import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from rerank_gateway.folder import Folder, InvalidFolderError
from rerank_gateway.records import Kind, ObjectId
from rerank_gateway.state import State
from tests.rerank_gateway import objects, program
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.harness import BODY, MINTED, until

pytestmark = pytest.mark.slow


def write(path: Path, *bodies: objects.Object) -> None:
    path.write_text(yaml.safe_dump_all(bodies))


def test_yaml_lists_and_json_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", objects.model(), objects.endpoint_slice(["127.0.0.1"]))
    listed = {"kind": "List", "items": [objects.api_key(MINTED)]}
    (tmp_path / "b.json").write_text(json.dumps(listed))
    (tmp_path / "notes.txt").write_text("not: [yaml")
    state = State()
    Folder(tmp_path, state).load()
    assert [state.count(kind) for kind in Kind] == [1, 1, 1, 0]
    assert state.replicas(ObjectId("default", "minilm"))[0].address.host == "127.0.0.1"


def test_timestamps_may_stand_without_quotes(tmp_path: Path) -> None:
    text = yaml.safe_dump(objects.api_key(MINTED)).replace("'", "")
    assert "creationTimestamp: 2026-01-01T00:00:00Z" in text
    (tmp_path / "key.yaml").write_text(text)
    state = State()
    Folder(tmp_path, state).load()
    assert state.keys(MINTED.sha256)


@pytest.mark.parametrize(
    "text", ["a: [", "kind: Secret", "- 1", "kind: APIKey", "{kind: ModelDeployment, metadata: {name: a}}"]
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(InvalidFolderError, match=r"broken\.yaml"):
        Folder(tmp_path, State()).load()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidFolderError, match="No such file"):
        Folder(tmp_path / "none", State()).load()


async def test_changes_are_noticed_and_a_broken_file_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_gateway.folder._POLL_SECONDS", 0.01)
    path = tmp_path / "key.yaml"
    write(path, objects.api_key(MINTED))
    state = State()
    folder = Folder(tmp_path, state)
    assert folder.unsynced() == [str(tmp_path)]
    folder.load()
    assert folder.unsynced() == []
    task = asyncio.create_task(folder.run())
    path.write_text("a: [")
    await until(lambda: folder.ages()["folder"] > 0.1)
    assert state.keys(MINTED.sha256)
    write(path, objects.api_key(MINTED, disabled=True))
    await until(lambda: state.keys(MINTED.sha256)[0].key.disabled)
    path.unlink()
    await until(lambda: not state.keys(MINTED.sha256))
    task.cancel()


async def test_the_program_serves_a_folder_and_stops_cleanly(tmp_path: Path) -> None:
    async with FakeEngine() as engine:
        write(
            tmp_path / "all.yaml",
            objects.api_key(MINTED),
            objects.model(),
            objects.endpoint_slice([engine.host], port=engine.port),
        )
        process = program.start("--config-dir", str(tmp_path), RERANK_DRAIN_SECONDS="0.2")
        try:
            port = await asyncio.to_thread(program.port, process)
            status, answer = await asyncio.to_thread(_rerank, port)
            assert (status, answer["results"][0]["index"]) == (200, 2)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 10) == 0
        finally:
            process.kill()
            output = process.communicate()[0]
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["event"] for line in lines] == ["request", "draining", "stopped"]
    assert MINTED.text not in output


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--config-dir", "."], {"RERANK_BACKEND_TOKEN_FILE": "/nowhere"}, "/nowhere"),
        ([], {"KUBECONFIG": "/nowhere"}, "--config-dir"),
    ],
)
def test_what_keeps_the_program_from_starting_is_said(
    arguments: list[str], environment: dict[str, str], reason: str
) -> None:
    process = program.start(*arguments, **environment)
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 2
    assert reason in json.loads(output)["reason"]


def _rerank(port: int) -> tuple[int, objects.Object]:
    request = urllib.request.Request(
        f"http://localhost:{port}/v1/rerank",
        json.dumps(BODY).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {MINTED.text}"},
    )
    end = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.URLError:
            assert time.monotonic() < end
            time.sleep(0.02)
