"""The program's commands that need no engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rerank_runtime.cli import app
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
