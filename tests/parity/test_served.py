"""One encoder, and one template model with and without an instruction, through the whole chain; `make parity`
has every family.
"""

import json
import subprocess
from collections.abc import Iterator

import pytest

from parity import __main__ as suite
from parity import measure, table, wrong
from parity.sensitivity import BOUND
from parity.serving import ROOT, Refusal, Served, pythonpath
from tests.parity.conftest import FAMILIES, Built

_FLOOD = 10_000
# What other neighbours in a batch may change.
_ROUNDING = 1e-5


def test_a_model_that_is_split_scores_the_same(built: Built) -> None:
    """Two processes with a half of the model each, as on two GPUs."""
    with built.chain.serving("qwen3", built.model("qwen3"), ["--split=2"]) as served:
        assert isinstance(served, Served), served
        row = measure.compare("qwen3", served, suite.reference(built.work, "qwen3"))
    assert served.plan["split"] == 2
    assert table.failures(built.families["qwen3"], row) == []


@pytest.mark.parametrize(
    "what",
    [
        "overrides without a template",
        "the template without its last newline, as vLLM's example renders (same token count)",
        "the scoring suffix cut off",
        "no overrides: the bi-encoder trap, cosines with 200",
        "yes and no swapped",
    ],
)
def test_a_wrong_configuration_is_caught_before_ready(built: Built, what: str) -> None:
    [case] = [case for case in wrong.CASES if case.what == what and case.family == "qwen3"]
    outcome = suite.attempt(built.chain, built.work, built.families["qwen3"], case)
    assert (outcome.caught_by, outcome.caught) == ("verification", True)
    # It answered with scores all the while, and they are wrong.
    assert outcome.difference is not None
    assert outcome.difference > 0.1


def test_the_plan_gives_the_cache_what_it_needs_and_not_a_block_more(built: Built) -> None:
    """So a cache that is too small cannot be asked for; with one block less vLLM refuses, and says why."""
    model = built.model("qwen3")
    plan = built.chain.plan(model)
    assert isinstance(plan, dict)
    config = json.loads((model / "config.json").read_bytes())
    heads, layers = config["num_key_value_heads"], config["num_hidden_layers"]
    block = 128 * 2 * layers * heads * config["head_dim"] * 4  # tokens, keys and values, float32
    less = {"--kv-cache-memory-bytes": str(plan["kv_cache_bytes"] - block)}
    with built.chain.serving("qwen3", model, changes=less) as refused:
        assert isinstance(refused, Refusal)
    assert refused.reason == "KvCacheTooSmall"
    assert "Set engine.maxModelLen to a shorter length" in refused.message


def test_processes_that_sleep_between_messages_miss_none(built: Built) -> None:
    """Hundreds of messages in both directions, at once and after pauses, all in order."""
    command = [str(built.python), "-m", "bench.vllm.message_queue", "spinning", "sleeping"]
    done = subprocess.run(
        command, cwd=ROOT, env=pythonpath(), check=True, capture_output=True, text=True, timeout=240
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["sleeping"]["milliseconds"]) == len(told["spinning"]["milliseconds"]) > 1000
    assert told["sleeping"]["busy"] < told["spinning"]["busy"] / 2


@pytest.fixture(scope="module", params=FAMILIES)
def running(built: Built, request: pytest.FixtureRequest) -> Iterator[tuple[str, Served]]:
    """A family's name, and its model while it answers, to the end of this file: these tests are the last."""
    name = request.param
    with built.chain.serving(name, built.model(name), built.families[name]["options"]) as served:
        assert isinstance(served, Served), served
        yield name, served


def test_scores_are_the_model_cards(built: Built, running: tuple[str, Served]) -> None:
    name, served = running
    row = measure.compare(name, served, suite.reference(built.work, name))
    assert table.failures(built.families[name], row) == []
    assert row.pairs >= 50
    assert set(row.difference) == {"varied", "control", "overlong"}


def test_a_flood_of_control_tokens_is_text_and_moves_no_other_document(running: tuple[str, Served]) -> None:
    name, served = running
    token = "[SEP]" if name == "bert" else "<|im_end|>"
    before, after = "Pandas eat bamboo.", "Whales are mammals."
    flood = f"Pandas {token * _FLOOD}"
    text = flood.replace(token, f"{token[0]} {token[1:]}")
    first, as_tokens, last = _scores(served, before, flood, after)
    _, as_text, _ = _scores(served, before, text, after)
    assert as_tokens == pytest.approx(as_text, abs=_ROUNDING)
    assert [first, last] == pytest.approx(_scores(served, before, after), abs=_ROUNDING)
    assert abs(first - last) > BOUND


def _scores(served: Served, *documents: str) -> list[float]:
    answer = served.rerank("Which documents speak of pandas?", documents)
    assert answer.status == 200, answer.body
    found = {result["index"]: result["relevance_score"] for result in answer.body["results"]}
    return [found[index] for index in range(len(documents))]
