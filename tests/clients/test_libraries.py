"""Real client libraries against the gateway, over sockets, in the environments that `make clients` builds.

They cannot share one: cohere 7 and what needs cohere 5, httpx 0.27 and 0.28.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rerank_api import keys
from tests.rerank_gateway.harness import MINTED, PANDA, Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "clients" / "scripts"
RUNS = [
    ("frameworks", "with_cohere"),
    ("sdks", "with_cohere"),
    ("frameworks", "with_voyageai"),
    ("sdks", "with_voyageai"),
    ("frameworks", "with_langchain"),
    ("frameworks", "with_llama_index"),
    ("frameworks", "with_haystack"),
    ("frameworks", "with_litellm"),
    ("frameworks", "with_xinference_client"),
    ("sdks", "with_infinity_client"),
]
SECONDS = 180

ASKED: dict[str, Any] = {
    "key": MINTED.text,
    "model": "minilm",
    "query": "what is a panda bear",
    "documents": PANDA,
    "top_n": 3,
}
CASES: dict[str, dict[str, Any]] = {
    "ranks": {},
    "ranks by default": {"top_n": None},
    "cuts": {"top_n": 1},
    "wrong key": {"key": keys.mint().text},
    "unknown model": {"model": "unknown"},
}
RANKED = [[2, 0.8], [1, 0.6], [0, 0.0]]
EXPECTED: dict[str, list[Any] | str] = {
    "ranks": RANKED,
    "ranks by default": RANKED,
    "cuts": RANKED[:1],
    "wrong key": "The API key is not valid",
    "unknown model": 'The model "unknown" does not exist',
}
# What a library makes of any answer that the gateway could give.
OWN_WAYS: dict[str, dict[str, list[Any] | str]] = {
    # Takes no None.
    **{
        f"LlamaIndex {name}": {"ranks by default": "validation error"}
        for name in ("CohereRerank", "JinaRerank", "XinferenceRerank")
    },
    # Does not look at the status of an answer.
    "LlamaIndex TextEmbeddingInference": {
        "ranks by default": "validation error",
        "wrong key": "TypeError",
        "unknown model": "TypeError",
    },
}


@pytest.mark.parametrize(("environment", "script"), RUNS)
async def test_a_library_ranks_and_tells_what_is_wrong(
    gateway: Running, tmp_path: Path, environment: str, script: str
) -> None:
    out = await run(environment, script, gateway.url, tmp_path)
    assert out
    for client, outcomes in out.items():
        expected = EXPECTED | OWN_WAYS.get(client, {})
        assert set(outcomes) == set(CASES)
        for case, outcome in outcomes.items():
            wanted = expected[case]
            if isinstance(wanted, str):
                text = outcome.get("failed", "")
                assert wanted in text.replace('\\"', '"'), (client, case, outcome)
                assert "KeyError" not in text, (client, case, outcome)
            else:
                assert outcome.get("ranked") == wanted, (client, case, outcome)


async def run(environment: str, script: str, url: str, home: Path) -> dict[str, dict[str, Any]]:
    """What each client of a script made of each case."""
    python = ROOT / ".venv-clients" / environment / "bin" / "python"
    assert python.exists(), "make clients builds the environments of the client libraries"
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(SCRIPTS / "run.py"),
        script,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=home,
        # No library is to ask anyone but the gateway.
        env={
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "HAYSTACK_TELEMETRY_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
    )
    cases = json.dumps({case: ASKED | fields for case, fields in CASES.items()})
    try:
        out, err = await asyncio.wait_for(process.communicate(cases.encode()), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    sys.stderr.write(err.decode())
    assert process.returncode == 0, err.decode()
    found: dict[str, dict[str, Any]] = json.loads(out)
    return found
