"""Real client libraries against the gateway, over sockets, in the environments that `make clients` builds.

They cannot share one: cohere 7 and what needs cohere 5, httpx 0.27 and 0.28.
"""

from pathlib import Path
from typing import Any

import pytest

from rerank_api import keys
from tests.clients.running import run
from tests.rerank_gateway.harness import MINTED, PANDA, Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

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
    cases = {case: ASKED | fields for case, fields in CASES.items()}
    out = await run(environment, script, gateway.url, cases, home=tmp_path)
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
