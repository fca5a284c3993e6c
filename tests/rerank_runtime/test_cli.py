"""The program's commands that need no engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rerank_runtime.cli import app
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import OnOverflow, Options
from rerank_runtime.serve_plan import ServePlan
from tests.rerank_runtime.support import write_model


def test_plan_prints_how_the_model_would_be_served(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plan", str(write_model(tmp_path))])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["architecture"] == "BertForSequenceClassification"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--method=Cosine"], "NotAReranker"), (["--device=cpu"], "FileMissing")],
)
def test_plan_prints_the_refusal(tmp_path: Path, arguments: list[str], reason: str) -> None:
    write_model(tmp_path)
    if reason == "FileMissing":
        (tmp_path / "tokenizer.json").unlink()
    result = CliRunner().invoke(app, ["plan", str(tmp_path), *arguments])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["reason"] == reason


@pytest.mark.parametrize("option", ["--method=Sum", "--device=tpu"])
def test_other_options_are_refused(tmp_path: Path, option: str) -> None:
    result = CliRunner().invoke(app, ["plan", str(tmp_path), option])
    assert result.exit_code == 2
    assert "Invalid value" in result.output


def test_the_options_reach_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []

    def refuse(_files: ModelFiles, options: Options) -> ServePlan:
        seen.append(options)
        raise Failure(Reason.INVALID_OPTIONS, "for once")

    monkeypatch.setattr("rerank_runtime.plan.plan", refuse)
    flags = [
        "--split=2",
        "--instruction=find $answers",
        "--max-model-len=2048",
        "--dtype=auto",
        "--gpu-memory-utilization=0.5",
        "--trust-remote-code",
        "--max-tokens-per-document=100",
        "--max-tokens-per-query=50",
        "--on-overflow=Reject",
    ]
    result = CliRunner().invoke(app, ["plan", str(write_model(tmp_path)), *flags])
    assert result.exit_code == 2
    assert seen == [
        Options(
            split=2,
            instruction="find $answers",
            max_model_len=2048,
            gpu_memory_utilization=0.5,
            trust_remote_code=True,
            max_tokens_per_document=100,
            max_tokens_per_query=50,
            on_overflow=OnOverflow.REJECT,
        )
    ]


@pytest.mark.parametrize(
    "option", ["--max-model-len=0", "--gpu-memory-utilization=2", "--on-overflow=Ignore", "--max-model-len=x"]
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, option: str) -> None:
    result = CliRunner().invoke(app, ["serve", str(tmp_path), option])
    assert result.exit_code == 2
    assert "Invalid value" in result.output


def test_settings_of_verification_that_are_none_are_refused(tmp_path: Path) -> None:
    result = CliRunner(env={"RERANK_VERIFICATION": '{"mode": "Sometimes"}'}).invoke(
        app, ["serve", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert "Sometimes" in result.output
