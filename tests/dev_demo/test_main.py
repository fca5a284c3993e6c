"""The exit status of `make demo`, and what it prints on either way out."""

from typing import Any

import pytest

from dev.cluster.errors import ClusterError
from dev.demo import __main__ as demo
from dev.demo.follow import GaveUpError
from dev.demo.panda import DOCUMENTS, PANDA, AnswerError, Ranked


def ranked(*order: int) -> list[Ranked]:
    return [Ranked(0.9 - place / 4, DOCUMENTS[index], index) for place, index in enumerate(order)]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The steps of the demo, done by nobody; what `answer` holds is the ranking, or is raised."""
    outcome: dict[str, Any] = {"answer": ranked(2, 1, 0), "prepare": ("a cluster", "0.1.0-test")}

    def give(name: str) -> Any:
        if isinstance(outcome[name], Exception):
            raise outcome[name]
        return outcome[name]

    monkeypatch.setenv("HUB", "demo")
    monkeypatch.setattr(demo, "prepare", lambda **_: give("prepare"))
    monkeypatch.setattr(demo, "_install", lambda *_: None)
    monkeypatch.setattr(demo, "_await_ready", lambda *_: None)
    monkeypatch.setattr(demo, "_first_answer", lambda *_: give("answer"))
    monkeypatch.setattr(demo, "sections", lambda *_: iter(["--- modeldeployment/minilm\nwhat went wrong"]))
    return outcome


def test_the_panda_text_first_is_success(steps: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([]) == 0
    printed = capsys.readouterr().out
    assert printed.index("0.9000") < printed.index(PANDA[:20]) < printed.index("it is a bear")
    assert "kubectl describe modeldeployment minilm" in printed


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 2, 0)])
def test_any_other_order_fails(
    steps: dict[str, Any], order: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    steps["answer"] = ranked(*order)
    assert demo.main([]) == 1
    captured = capsys.readouterr()
    assert "it is a bear" in captured.out  # the table is shown all the same
    assert "the panda text is not first" in captured.err


@pytest.mark.parametrize(
    "error",
    [
        GaveUpError("modeldeployment/minilm: Failed - RepositoryNotFound"),
        AnswerError("the gateway answered 503", status=503),
        ClusterError("helm: timed out"),
    ],
)
def test_a_failure_is_told_with_what_led_to_it(
    steps: dict[str, Any], error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    steps["answer"] = error
    assert demo.main([]) == 1
    told = capsys.readouterr().err
    assert "what went wrong" in told
    assert told.endswith(f"error: {error}\n")


def test_without_a_cluster_there_is_nothing_to_diagnose(
    steps: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    steps["prepare"] = ClusterError("a node from source needs root on Linux")
    assert demo.main([]) == 1
    assert capsys.readouterr().err == "\nerror: a node from source needs root on Linux\n"
