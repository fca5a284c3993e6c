"""The tokenizer that splits at seams, as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from rerank_runtime import chat_template, prompt_pieces
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.intake import Admitted, Intake, IntakeSettings
from rerank_runtime.options import Method
from rerank_runtime.prompt_pieces import SEAM


def model(directory: Path, *, split: bool = True) -> Path:
    tokenizer = Tokenizer(models.BPE())
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=40, show_progress=False)
    tokenizer.train_from_iterator(["ab?", "?c", "abc"] * 5, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("split", [True, False])
def test_it_splits_at_seams_and_drops_them(tmp_path: Path, split: bool) -> None:
    directory = prompt_pieces.write_tokenizer(model(tmp_path, split=split), tmp_path)
    before = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    after = Tokenizer.from_file(str(directory / "tokenizer.json"))
    parts = ["ab", "?", "c"]
    apart = [i for part in parts for i in before.encode(part).ids]
    assert after.encode(SEAM.join(parts)).ids == apart
    assert after.encode("abc?").ids == before.encode("abc?").ids


def test_transformers_takes_the_file_as_it_is(tmp_path: Path) -> None:
    directory = prompt_pieces.write_tokenizer(model(tmp_path), tmp_path)
    config = json.loads((directory / "tokenizer_config.json").read_bytes())
    assert config == {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}


def test_a_damaged_tokenizer_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(Failure) as caught:
        prompt_pieces.write_tokenizer(tmp_path, tmp_path)
    assert caught.value.reason is Reason.TOKENIZER_INVALID


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mxbai_rerank_v2", True),
        ("bge_reranker_v2_gemma", True),
        ("qwen3_reranker", False),
        ("nemotron_rerank", False),
    ],
)
def test_which_templates_have_seams(name: str, expected: bool) -> None:
    template = chat_template.load(name)
    assert prompt_pieces.wanted(template) is expected
    assert (SEAM in chat_template.render(template, "q", "d")) is expected


def test_a_seam_in_a_text_is_taken_out(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(chat_template.load("mxbai_rerank_v2"))
    settings = IntakeSettings(model(tmp_path), Method.CROSS_ENCODER, 512, template)
    body = json.dumps({"query": f"a{SEAM}b", "documents": [f"{SEAM}c{SEAM}"]}).encode()
    taken = Intake(settings).whole(body)
    assert isinstance(taken, Admitted)
    assert json.loads(taken.body) == {"query": "ab", "documents": ["c"]}


def test_where_there_are_no_seams_the_character_stays(tmp_path: Path) -> None:
    settings = IntakeSettings(model(tmp_path), Method.CROSS_ENCODER, 512)
    taken = Intake(settings).whole(json.dumps({"query": f"a{SEAM}b", "documents": ["c"]}).encode())
    assert isinstance(taken, Admitted)
    assert json.loads(taken.body)["query"] == f"a{SEAM}b"


def test_a_pair_model_has_no_seams() -> None:
    assert not prompt_pieces.wanted(None)
