"""Which GGUF file of a repository is used."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.gguf import Choice, choose
from rerank_runtime.gguf.choice import QUALITY, quantisation

BGE = [
    ".gitattributes",
    "README.md",
    *(
        f"bge-reranker-v2-m3-{q}.gguf"
        for q in ("FP16", "Q2_K", "Q3_K", "Q4_0", "Q4_K_M", "Q5_0", "Q6_K", "Q8_0")
    ),
]


def test_the_tutorials_pattern_picks_its_file() -> None:
    assert choose(BGE, "*Q8_0.gguf") == Choice("bge-reranker-v2-m3-Q8_0.gguf", "Q8_0", "pattern")


def test_the_nearest_to_the_original_is_chosen_without_a_wish() -> None:
    assert choose(BGE) == Choice("bge-reranker-v2-m3-FP16.gguf", "FP16", "best")


@pytest.mark.parametrize(("better", "worse"), list(pairwise(QUALITY)))
def test_quality_is_an_order(better: str, worse: str) -> None:
    names = [f"model-{worse}.gguf", f"model-{better}.gguf"]
    assert choose(names).quantisation == better
    assert choose(reversed(names)).quantisation == better


def test_the_order_of_the_listing_does_not_matter() -> None:
    shuffled = BGE.copy()
    random.Random(4).shuffle(shuffled)
    assert choose(shuffled) == choose(BGE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bge-reranker-v2-m3-Q8_0.gguf", "Q8_0"),
        ("qwen3-reranker-0.6b-q8_0.gguf", "Q8_0"),
        ("Qwen3-Reranker-8B.i1-IQ4_XS.gguf", "IQ4_XS"),
        ("Qwen3-Reranker-4B-UD-Q4_K_XL.gguf", "Q4_K_XL"),
        ("Qwen3-Reranker-0.6B.f16.gguf", "F16"),
        ("BF16/Qwen3-Reranker-0.6B-BF16-00001-of-00001.gguf", "BF16"),
        ("F16.gguf", "F16"),
        ("bge-reranker-v2-m3.gguf", None),
        ("Qwen3-Reranker-0.6B.gguf", None),
        ("model-v2.gguf", None),
    ],
)
def test_the_quantisation_is_what_the_name_ends_with(name: str, expected: str | None) -> None:
    assert quantisation(name) == expected


def test_a_file_alone_is_used_whatever_its_name() -> None:
    assert choose(["a.gguf", "a.txt"]) == Choice("a.gguf", None, "only")


def test_what_belongs_to_other_models_is_left_out() -> None:
    assert choose(["mmproj-F16.gguf", "imatrix.gguf", "m-Q8_0.gguf"]).name == "m-Q8_0.gguf"


def test_a_whole_file_is_preferred_to_a_better_one_in_parts() -> None:
    parts = [f"m-F16-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert choose([*parts, "m-Q6_K.gguf", "m-Q4_0.gguf"]).name == "m-Q6_K.gguf"


def test_one_part_of_one_is_whole() -> None:
    name = "m-Q8_0-00001-of-00001.gguf"
    assert choose([name], "*Q8_0*") == Choice(name, "Q8_0", "pattern")


@pytest.mark.parametrize(
    ("names", "pattern", "words"),
    [
        (BGE, "*Q9*", ["*Q9*", "bge-reranker-v2-m3-Q4_0.gguf"]),
        (BGE, "*Q4*", ["2 GGUF files", "Q4_0.gguf", "Q4_K_M.gguf", "exactly one"]),
        (["model.safetensors"], "*Q8_0.gguf", ["no GGUF file", "remove the field"]),
        (["model.safetensors"], None, ["no GGUF file"]),
        (["a/x-Q8_0.gguf", "b/y-Q8_0.gguf"], None, ["a/x-Q8_0.gguf, b/y-Q8_0.gguf", "huggingFace.file"]),
        (["x.gguf", "y.gguf"], None, ["x.gguf, y.gguf"]),
        ([f"m-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)], "*Q8_0*", ["split over several"]),
        ([f"m-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)], None, ["split over several"]),
        ([f"{n}-Q8_0.gguf" for n in range(20)], "*", ["and 8 more"]),
    ],
)
def test_anything_else_is_refused_with_the_candidates(
    names: list[str], pattern: str | None, words: list[str]
) -> None:
    with pytest.raises(Failure) as caught:
        choose(names, pattern)
    assert caught.value.reason is Reason.INVALID_SOURCE
    for word in words:
        assert word in caught.value.message
