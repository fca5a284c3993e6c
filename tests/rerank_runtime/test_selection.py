"""Which files of a repository are fetched."""

from __future__ import annotations

import pytest

from rerank_runtime import selection
from rerank_runtime.failure import Failure, Reason

BASE = ["config.json", "tokenizer.json", "vocab.txt"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([*BASE, "model.safetensors"], [*BASE, "model.safetensors"]),
        (
            [
                *BASE,
                "model.safetensors",
                "pytorch_model.bin",
                "model.onnx",
                "onnx/model.onnx",
                "tf_model.h5",
                "x.png",
            ],
            [*BASE, "model.safetensors"],
        ),
        (
            [
                *BASE,
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
            [
                *BASE,
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
        (
            [
                "config.json",
                "model.safetensors",
                "modules.json",
                "1_Pooling/config.json",
                "sentence_bert_config.json",
            ],
            [
                "config.json",
                "model.safetensors",
                "modules.json",
                "1_Pooling/config.json",
                "sentence_bert_config.json",
            ],
        ),
        (
            ["config.json", "model.safetensors", "modeling_x.py", "sub/config.json"],
            ["config.json", "model.safetensors"],
        ),
    ],
)
def test_selects_what_serving_needs(names: list[str], expected: list[str]) -> None:
    assert selection.select(names) == sorted(expected)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["model.safetensors"], "no config.json"),
        (["adapter_config.json", "adapter_model.safetensors"], "holds an adapter"),
        (["README.md", "bge-Q8_0.gguf"], "only GGUF"),
        ([*BASE, "pytorch_model.bin"], "no safetensors weights"),
        ([*BASE, "model-00001-of-00002.safetensors"], "no safetensors weights"),
    ],
)
def test_refuses_a_repository_without_a_model(names: list[str], says: str) -> None:
    with pytest.raises(Failure, match=says) as refusal:
        selection.select(names)
    assert refusal.value.reason == Reason.INVALID_SOURCE


def test_python_is_fetched_only_where_it_may_be_run() -> None:
    names = [*BASE, "model.safetensors", "configuration.py", "scripts/train.py", "setup.cfg"]
    assert "configuration.py" not in selection.select(names)
    assert selection.select(names, python=True) == sorted([*BASE, "model.safetensors", "configuration.py"])


def test_what_a_reranker_is_known_by_is_fetched() -> None:
    names = ["README.md", "chat_template.jinja", "modules.json", "1_LogitScore/config.json"]
    assert selection.select([*BASE, "model.safetensors", *names]) == sorted(
        [*BASE, "model.safetensors", *names]
    )
