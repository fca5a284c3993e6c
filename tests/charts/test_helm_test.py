"""What `helm test` runs, run against a gateway: it passes where things work, and fails where they do not."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from manifests.render import CHART, NAMESPACE
from rerank_api import backend_token
from tests.rerank_gateway import objects as resources
from tests.rerank_gateway.fake_engine import Behaviour, FakeEngine, Seen
from tests.rerank_gateway.harness import MASTER, MINTED, Running, running, slice_of

Render = Callable[..., list[dict[str, Any]]]


@dataclass
class Scoring(FakeEngine):
    """An engine that gives the documents these scores."""

    scores: tuple[float, ...] = ()

    def _rank(self, seen: Seen, behaviour: Behaviour) -> tuple[int, bytes, bytes]:
        status, headers, content = super()._rank(seen, behaviour)
        answer = json.loads(content)
        for result in answer["results"]:
            result["relevance_score"] = self.scores[result["index"]]
        return status, headers, json.dumps(answer).encode()


def pod_of_the_test(render: Render, *values: str) -> dict[str, Any]:
    (pod,) = [item for item in render(*values) if item["kind"] == "Pod"]
    return pod


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str


async def run(gateway: Running, **environment: str) -> Outcome:
    """Run the script of the pod as the pod does."""
    script = (CHART / "files" / "helm_test.py").read_text()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        env={"PATH": os.environ["PATH"], "RERANK_URL": gateway.url, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Outcome(process.returncode, output.decode())


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Running]:
    async with running() as gateway:
        yield gateway


async def test_without_a_key_the_public_surface_is_checked(gateway: Running) -> None:
    found = await run(gateway)
    assert found.code == 0, found.output
    assert found.output.splitlines() == [
        "ok: a request without a key is refused with 401 and a reason",
        "ok: /openapi.json describes /v1/rerank",
        "not checked: a ranking. Set test.model and test.keySecret to have one.",
    ]


@pytest.mark.parametrize(("scores", "code"), [((0.1, 0.2, 0.9), 0), ((0.1, 0.9, 0.2), 1)])
async def test_with_a_model_the_order_decides(gateway: Running, scores: tuple[float, ...], code: int) -> None:
    async with Scoring(token=backend_token.token(MASTER, "default"), scores=scores) as engine:
        gateway.source.put(resources.model(), *slice_of([engine]))
        found = await run(gateway, RERANK_MODEL="minilm", RERANK_KEY=MINTED.text)
    assert found.code == code, found.output
    assert ("ok: minilm ranks the panda's text first" in found.output) is (code == 0)
    assert ("FAILED: minilm ranks the panda's text first" in found.output) is (code == 1)
    assert MINTED.text not in found.output


async def test_a_model_that_does_not_answer_fails_with_the_answer(gateway: Running) -> None:
    found = await run(gateway, RERANK_MODEL="minilm", RERANK_KEY=MINTED.text)
    assert found.code == 1
    assert "FAILED: minilm answers" in found.output
    assert '"error"' in found.output


def test_the_pod_is_a_hook_that_asks_the_service(render: Render) -> None:
    pod = pod_of_the_test(render)
    assert pod["metadata"]["namespace"] == NAMESPACE
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert container["env"] == [{"name": "RERANK_URL", "value": f"http://rerank-gateway.{NAMESPACE}"}]
    assert container["args"][0] == (CHART / "files" / "helm_test.py").read_text()


def test_the_key_comes_from_its_secret(render: Render) -> None:
    pod = pod_of_the_test(render, 'test={"model":"org/name","keySecret":"search-key","namespace":"team"}')
    assert pod["metadata"]["namespace"] == "team"
    (container,) = pod["spec"]["containers"]
    assert container["env"][1:] == [
        {"name": "RERANK_MODEL", "value": "org/name"},
        {"name": "RERANK_KEY", "valueFrom": {"secretKeyRef": {"name": "search-key", "key": "key"}}},
    ]
