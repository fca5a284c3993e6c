"""Rerankers from GGUF files: one that reads pairs, and one that reads a prompt, with an instruction.

Their weights are random, so they are served with `verification.mode: Report`, and what is found is told.
"""

import hashlib
import math
from collections.abc import Iterator

import pytest

from rerank_runtime import chat_template
from rerank_runtime.verification.cases import ENGLISH
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.fixtures import FROM_GGUF, INSTRUCTION
from tests.cluster.harness.gateway import Gateway, ask, ranking
from tests.cluster.harness.objects import Object, condition

# name: repository, its only file that matches, family, architecture
FOUND = {
    "prompted": (
        "demo/qwen3-reranker-gguf",
        "qwen3-reranker-tiny-Q8_0.gguf",
        "qwen3",
        "Qwen3ForSequenceClassification",
    ),
    "paired": (
        "demo/bge-reranker-gguf",
        "bge-reranker-tiny-Q8_0.gguf",
        "xlm-roberta",
        "XLMRobertaForSequenceClassification",
    ),
}


@pytest.fixture(scope="module")
def served(cluster: Cluster, from_gguf_applied: None) -> Iterator[dict[str, Object]]:
    """Both models, Ready."""
    yield {name: cluster.wait_ready(name, FROM_GGUF) for name in FOUND}
    cluster.kubectl("delete", "md", "--all", f"--namespace={FROM_GGUF}", "--wait=false")


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stands_in_the_status(served: dict[str, Object], name: str) -> None:
    repo, file, family, architecture = FOUND[name]
    known = served[name]["status"]["model"]
    assert (known["repo"], known["file"]) == (repo, file)
    assert (known["family"], known["architecture"]) == (family, architecture)
    assert (known["scoring"]["method"], known["scoring"]["range"]) == ("CrossEncoder", "[0,1]")
    cases = known["scoring"]["cases"]
    assert {case["query"] for case in cases} >= {case.query for case in ENGLISH}
    assert all(0 < case[text] < 1 for case in cases for text in ("relevant", "irrelevant")), cases


@pytest.mark.parametrize("name", FOUND)
def test_scores_at_random_are_reported_and_served(served: dict[str, Object], name: str) -> None:
    """By the order of the checks, template, routes and the number of tokens were found right before."""
    verified = condition(served[name], "ScoringVerified")
    assert (verified["status"], verified["reason"]) == ("False", "ScoresInverted"), verified


def test_the_instruction_is_in_the_template(served: dict[str, Object]) -> None:
    scoring = served["prompted"]["status"]["model"]["scoring"]
    template = chat_template.load("qwen3_reranker", INSTRUCTION)
    assert scoring["instruction"] == INSTRUCTION
    assert scoring["templateSHA256"] == hashlib.sha256(template.encode()).hexdigest()
    paired = served["paired"]["status"]["model"]["scoring"]
    assert not {"instruction", "templateSHA256"} & set(paired)


@pytest.mark.parametrize("name", FOUND)
def test_the_gateway_gives_what_was_verified(
    cluster: Cluster, gateway: Gateway, served: dict[str, Object], name: str
) -> None:
    """A known question through the gateway has the scores that stand in the status."""
    key = cluster.wait_key_ready("caller", FROM_GGUF)
    known = ENGLISH[0]
    documents = [known.irrelevant, known.relevant]
    answer = ask(gateway.service, key, {"model": name, "query": known.query, "documents": documents})
    scores = dict(ranking(answer))
    cases = served[name]["status"]["model"]["scoring"]["cases"]
    [case] = [case for case in cases if case["query"] == known.query]
    for index, text in enumerate(("irrelevant", "relevant")):
        assert math.isclose(scores[index], case[text], abs_tol=2e-4), (scores, case)
