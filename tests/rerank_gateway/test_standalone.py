"""The gateway without Kubernetes, as docs/standalone.md tells it."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rerank_gateway import program
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.program import REPOSITORY

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs" / "standalone.md").read_text(encoding="utf-8")


def mint(*arguments: str) -> tuple[str, str]:
    """The APIKey as YAML, and the key."""
    done = subprocess.run(
        [sys.executable, "-m", "rerank_gateway.mint", *arguments],
        env=program.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout, done.stderr.removeprefix("The key, shown once: ").strip()


def asked_by_the_page() -> dict[str, Any]:
    found = re.search(r"curl .*? -d '(\{.*?\})'", PAGE, re.DOTALL)
    assert found
    body: dict[str, Any] = json.loads(found[1])
    return body


def ask(port: int, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/rerank",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask_until(status: int, port: int, key: str) -> str:
    """The code of the first error of that status."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found, answer = ask(port, key, asked_by_the_page())
        if found == status:
            return str(answer["error"]["code"])
        time.sleep(0.05)
    raise AssertionError(f"never {status}")


async def test_the_page_works(tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(REPOSITORY / "manifests" / "standalone", folder)
    async with FakeEngine(served_name="bge-m3") as engine:
        models = (folder / "models.yaml").read_text(encoding="utf-8")
        assert "port: 8000" in models
        (folder / "models.yaml").write_text(models.replace("port: 8000", f"port: {engine.port}"))
        text, key = await asyncio.to_thread(mint, "search")
        (folder / "search.yaml").write_text(text)
        process = program.start("--config-dir", str(folder), RERANK_DRAIN_SECONDS="0")
        try:
            port = await asyncio.to_thread(program.port, process)
            status, answer = await asyncio.to_thread(ask, port, key, asked_by_the_page())
            assert status == 200, answer
            assert (answer["model"], len(answer["results"])) == ("bge-m3", 2)
            (folder / "search.yaml").unlink()
            assert await asyncio.to_thread(ask_until, 401, port, key) == "invalid_api_key"
        finally:
            process.kill()
            process.communicate()
    assert [seen.path for seen in engine.seen][:1] == ["/v1/rerank"]


def test_a_minted_key_may_be_for_some_models_of_some_namespace() -> None:
    text, key = mint("search", "--namespace", "team", "--model", "a", "--model", "b")
    body = yaml.safe_load(text)
    assert body["metadata"]["namespace"] == "team"
    assert body["spec"] == {"models": ["a", "b"]}
    assert key not in text
