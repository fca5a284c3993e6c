"""One encoder and one template model through the whole chain; `make parity` has every family."""

import pytest

from parity import __main__ as suite
from parity import measure, table, wrong
from parity.serving import Served
from tests.parity.conftest import FAMILIES, Built


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_the_model_cards(built: Built, name: str) -> None:
    with built.chain.serving(name, built.model(name)) as served:
        assert isinstance(served, Served), served
        row = measure.compare(name, served, suite.reference(built.work, name))
    assert table.failures(built.families[name], row) == []
    assert row.pairs >= 50
    assert set(row.difference) == {"varied", "control", "overlong"}


@pytest.mark.parametrize(
    "what",
    [
        "overrides without a template",
        "the template without its last newline, as vLLM's example renders (same token count)",
    ],
)
def test_a_wrong_template_is_caught_before_ready(built: Built, what: str) -> None:
    [case] = [case for case in wrong.CASES if case.what == what and case.family == "qwen3"]
    outcome = suite.attempt(built.chain, built.work, built.families["qwen3"], case)
    assert (outcome.caught_by, outcome.caught) == ("verification", True)
    # It answered with scores all the while, and they are wrong.
    assert outcome.difference is not None
    assert outcome.difference > 0.1
