"""Reading a model's directory, complete and incomplete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerank_runtime import model_files
from rerank_runtime.failure import Failure, Reason
from tests.rerank_runtime.support import MEAN, MODULES, write_model


def test_reads_a_cross_encoder(tmp_path: Path) -> None:
    files = model_files.read(write_model(tmp_path))
    assert files.config["model_type"] == "bert"
    assert files.shapes["classifier.weight"] == (1, 384)
    assert (files.parameters, files.dtype) == (390, "F32")
    assert files.weights_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert files.has_tokenizer
    assert files.modules is None


def test_reads_a_sentence_transformers_model(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps(MODULES))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(MEAN))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    files = model_files.read(tmp_path)
    assert files.modules == MODULES
    assert files.pooling == MEAN
    assert files.max_sequence_length == 256


def test_reads_shards(tmp_path: Path) -> None:
    write_model(tmp_path)
    whole = (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"classifier.weight": whole.name, "bert.x": whole.name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_files.read(tmp_path).parameters == 390


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "config.json is not valid JSON"),
        ("config.json", "[]", "config.json is not a JSON object"),
        ("model.safetensors", None, "There is no model.safetensors"),
        (
            "model.safetensors.index.json",
            '{"weight_map": {"x": "model-00001-of-00002.safetensors"}}',
            "absent: model-0",
        ),
        ("model.safetensors.index.json", "{}", "absent: nothing"),
        ("modules.json", "{}", "modules.json is not a list"),
        ("modules.json", '[{"type": "x.Pooling", "path": "../.."}]', "outside the model's directory"),
    ],
)
def test_says_what_is_missing(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    write_model(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(Failure) as refusal:
        model_files.read(tmp_path)
    assert refusal.value.reason == Reason.FILE_MISSING
    assert says in refusal.value.message


def test_a_path_that_is_not_on_the_volume(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="check the volume and its path"):
        model_files.read(tmp_path / "nowhere")


def test_reads_what_a_language_model_is_known_as_a_reranker_by(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "Qwen3-Reranker-0.6B")
    modules = [{"type": "a.Transformer", "path": ""}, {"type": "b.LogitScore", "path": "1_LogitScore"}]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_LogitScore").mkdir()
    (directory / "1_LogitScore" / "config.json").write_text('{"true_token_id": 7, "false_token_id": null}')
    (directory / "tokenizer.json").write_text('{"model": {"vocab": {"yes": 7, "other": 8}}}')
    (directory / "chat_template.jinja").write_text("Judge")
    (directory / "README.md").write_bytes(b"# Qwen3-Reranker \xff")
    (directory / "configuration.py").write_text("")
    (tmp_path / "source.json").write_text('{"repo": "Qwen/Qwen3-Reranker-0.6B", "revision": "0"}')
    files = model_files.read(directory)
    assert files.module_kinds == ["Transformer", "LogitScore"]
    assert (files.words, files.score_tokens) == ({"yes": 7}, ("yes", None))
    assert (files.chat_template, files.card) == ("Judge", "# Qwen3-Reranker \ufffd")
    assert files.names == ("Qwen/Qwen3-Reranker-0.6B", "Qwen3-Reranker-0.6B")
    assert files.python == {"configuration.py"}


def test_a_chat_template_in_the_tokenizer_s_configuration_is_read(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": [{"name": "x", "template": "Judge"}]}')
    assert "Judge" in model_files.read(tmp_path).chat_template


@pytest.mark.parametrize("path", ["../1_LogitScore", "/etc", "1\\u0000"])
def test_modules_stay_inside_the_directory(tmp_path: Path, path: str) -> None:
    write_model(tmp_path)
    (tmp_path / "modules.json").write_text(f'[{{"type": "b.LogitScore", "path": "{path}"}}]')
    with pytest.raises(Failure, match="outside the model's directory"):
        model_files.read(tmp_path)
