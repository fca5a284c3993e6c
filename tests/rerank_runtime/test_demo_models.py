"""The demo hub's models are what they are meant to be, whatever serves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dev.hub import models, repository, word_overlap
from rerank_runtime import model_files
from rerank_runtime.failure import Failure
from rerank_runtime.gguf.convert import convert
from rerank_runtime.options import Method, Options
from rerank_runtime.plan import plan


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    models.build(root)
    return root


def folder(root: Path, name: str) -> Path:
    found = repository.load(root)[name]
    return found.folder / found.branches["main"]


def test_building_again_gives_the_same_commits(built: Path, tmp_path: Path) -> None:
    again = models.build(tmp_path)
    assert {name: repo.branches for name, repo in repository.load(built).items()} == again
    assert all(len(commit) == 40 for branches in again.values() for commit in branches.values())


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (models.MINILM, Method.COSINE),
        ("demo/word-overlap", Method.AUTO),
        ("demo/gated", Method.AUTO),
        ("demo/inverted", Method.AUTO),
        ("demo/constant", Method.AUTO),
        ("demo/saturated", Method.AUTO),
        ("demo/nan", Method.AUTO),
    ],
)
def test_the_plan_takes_them(built: Path, name: str, method: Method) -> None:
    assert plan(model_files.read(folder(built, name)), Options(method)).family == "bert"


@pytest.mark.parametrize(
    ("name", "family"), [("demo/qwen3-reranker-gguf", "qwen3"), ("demo/bge-reranker-gguf", "xlm-roberta")]
)
@pytest.mark.parametrize("pattern", ["*F16.gguf", "*Q8_0.gguf"])
def test_the_gguf_files_are_converted(
    built: Path, tmp_path: Path, name: str, family: str, pattern: str
) -> None:
    [path] = folder(built, name).glob(pattern)
    convert(path, tmp_path / "model")
    assert plan(model_files.read(tmp_path / "model"), Options()).family == family


@pytest.mark.parametrize(
    ("name", "reason"), [("demo/language-model", "NotAReranker"), ("demo/truncated", "WeightsTruncated")]
)
def test_the_plan_refuses_the_others(built: Path, name: str, reason: str) -> None:
    with pytest.raises(Failure) as refusal:
        plan(model_files.read(folder(built, name)), Options())
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("panda", True),
        ("##ing", True),
        ("7", True),
        ("what", False),
        ("?", False),
        ("[CLS]", False),
        ("[unused1]", False),
    ],
)
def test_what_counts_as_a_word(token: str, *, expected: bool) -> None:
    assert word_overlap.is_word(token) is expected


def test_words_are_nearly_orthogonal_and_of_one_length() -> None:
    vocabulary = ["[CLS]", "the", *(f"word{i}" for i in range(300))]
    embeddings = word_overlap.tensors(vocabulary)["bert.embeddings.word_embeddings.weight"]
    words = embeddings[2:]
    products = words @ words.T
    assert np.all(np.diag(products) == 60)
    assert np.max(products - np.diag(np.diag(products))) < 0.6 * 60
    assert np.all(np.abs(embeddings.sum(axis=1)) < 1e-6)
