"""Client libraries against the real thing: gateway, pod and vLLM. `tests/clients` has all of them."""

import asyncio
from pathlib import Path

import pytest

from tests.clients.running import run
from tests.cluster.harness.fixtures import Tutorial
from tests.cluster.harness.gateway import DOCUMENTS, QUERY, Gateway

# Cosines of the example's model, as sentence-transformers computes them.
SCORES = {2: 0.7455, 1: 0.4255, 0: 0.0914}


@pytest.mark.parametrize(
    ("environment", "script"),
    [("sdks", "with_cohere"), ("frameworks", "with_haystack"), ("frameworks", "with_voyageai")],
)
def test_a_library_ranks_what_a_real_model_scores(
    gateway: Gateway, tutorial: Tutorial, tmp_path: Path, environment: str, script: str
) -> None:
    asked = {
        "key": tutorial.key,
        "model": "minilm",
        "query": QUERY,
        "documents": DOCUMENTS,
        "top_n": 3,
    }
    cases = {"ranks": asked, "wrong key": asked | {"key": "rk_mistyped"}}
    url = f"http://{gateway.service.host}:{gateway.service.port}"
    out = asyncio.run(run(environment, script, url, cases, home=tmp_path))

    assert out
    for client, outcomes in out.items():
        ranked = outcomes["ranks"].get("ranked")
        assert [index for index, _ in ranked or ()] == list(SCORES), (client, outcomes["ranks"])
        assert dict(ranked) == pytest.approx(SCORES, abs=5e-4), client
        assert "The API key is not valid" in outcomes["wrong key"].get("failed", ""), (client, outcomes)
