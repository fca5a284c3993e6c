"""A converted GGUF file is its original: tensors, configuration, plan; or it is refused with a way out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
from safetensors.numpy import load_file

from rerank_runtime import model_files, safetensors_header
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.gguf import convert
from rerank_runtime.options import Device, Method, Options
from rerank_runtime.plan import plan
from tests.rerank_runtime import gguf_layout, gguf_models
from tests.rerank_runtime.gguf_models import Array

Change = Callable[[dict[str, Any], dict[str, Array]], None]
QUANTISATIONS: list[gguf_layout.Quantisation] = ["F32", "F16", "BF16", "Q8_0", "Q4_K"]


@pytest.fixture(scope="module")
def xlm_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_models.xlm_roberta(tmp_path_factory.mktemp("xlm"), small=True)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_models.qwen3(tmp_path_factory.mktemp("qwen"))


def converted(
    original: Path,
    tmp_path: Path,
    quantisation: gguf_layout.Quantisation = "F16",
    change: Change | None = None,
) -> Path:
    tmp_path.mkdir(exist_ok=True)
    path = gguf_layout.write_gguf(original, tmp_path / "m.gguf", quantisation, change=change)
    convert(path, tmp_path / "model")
    return tmp_path / "model"


def read(folder: Path) -> dict[str, Array]:
    """Tensors as 32-bit floats; numpy has no BF16."""
    tensors = {}
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            kind = package.GGMLQuantizationType[entry["dtype"]]
            content = np.frombuffer(raw[begin:end], np.uint8)
            tensors[name] = package.quants.dequantize(content, kind).reshape(entry["shape"])
    return tensors


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_every_tensor_of_xlm_roberta_comes_back(
    xlm_roberta: Path, tmp_path: Path, quantisation: gguf_layout.Quantisation
) -> None:
    result = read(converted(xlm_roberta, tmp_path, quantisation))
    original = load_file(xlm_roberta / "model.safetensors")
    assert set(result) == set(original)
    for name, array in original.items():
        expected = gguf_layout.kept(array, gguf_layout.gguf_name(name), quantisation)
        if "position_embeddings" in name:
            # No token has a position below padding's.
            expected = expected.copy()
            expected[:2] = 0
        np.testing.assert_array_equal(result[name], expected, err_msg=name)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_every_tensor_of_qwen3_comes_back_and_the_head_is_yes_minus_no(
    tmp_path: Path, quantisation: gguf_layout.Quantisation, tied: bool
) -> None:
    source = gguf_models.qwen3(tmp_path / "original", tied=tied)
    folder = converted(source, tmp_path, quantisation)
    result = read(folder)
    original = load_file(source / "model.safetensors")
    head = original.pop("lm_head.weight", original["model.embed_tokens.weight"])
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    rows = head[[vocab["yes"], vocab["no"]]]
    left = gguf_layout.rounded(rows, gguf_layout.tensor_kind("cls.output.weight", rows.shape, quantisation))
    np.testing.assert_array_equal(result.pop("score.weight"), left[:1] - left[1:])
    assert set(result) == set(original)
    for name, array in original.items():
        np.testing.assert_array_equal(
            result[name], gguf_layout.kept(array, gguf_layout.gguf_name(name), quantisation), name
        )


def test_f16_is_within_rounding_and_q4_k_is_not_far(xlm_roberta: Path, tmp_path: Path) -> None:
    """The bounds that the schemes promise, so that `rounded` itself is no free pass."""
    original = load_file(xlm_roberta / "model.safetensors")
    for quantisation, bound in (("F16", 2**-11), ("Q8_0", 2**-7), ("Q4_K", 2**-3)):
        result = read(converted(xlm_roberta, tmp_path / quantisation, quantisation))  # type: ignore[arg-type]
        for name in ("roberta.embeddings.word_embeddings.weight", "classifier.dense.weight"):
            error = np.abs(result[name] - original[name]).max() / np.abs(original[name]).max()
            assert error <= bound, (quantisation, name)
            assert error > bound / 64, "the scheme was not used at all"


def test_the_configuration_is_the_originals(xlm_roberta: Path, qwen3: Path, tmp_path: Path) -> None:
    original = json.loads((xlm_roberta / "config.json").read_text())
    result = json.loads((converted(xlm_roberta, tmp_path / "x") / "config.json").read_text())
    assert result == original | {"dtype": "float16"}
    original = json.loads((qwen3 / "config.json").read_text())
    result = json.loads((converted(qwen3, tmp_path / "q", "BF16") / "config.json").read_text())
    changed = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "dtype": "bfloat16",
    }
    assert result == {key: value for key, value in original.items() if key != "bos_token_id"} | changed


def test_the_folder_is_a_whole_model(xlm_roberta: Path, tmp_path: Path) -> None:
    folder = converted(xlm_roberta, tmp_path, "Q8_0")
    files = model_files.read(folder)
    assert files.has_tokenizer
    assert files.dtype == "F16"
    assert files.shapes["classifier.out_proj.weight"] == (1, 256)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert safetensors_header.read(folder / "model.safetensors").parameters_by_dtype.keys() == {"F16", "F32"}


def options() -> Options:
    return Options(method=Method.AUTO, device=Device.CPU, memory_limit=None)


@pytest.mark.parametrize(
    ("build", "family"), [(gguf_models.xlm_roberta, "xlm-roberta"), (gguf_models.qwen3, "qwen3")]
)
def test_the_plan_takes_the_folder_for_what_it_is(
    build: Callable[..., Path], family: str, tmp_path: Path
) -> None:
    folder = converted(build(tmp_path / "original"), tmp_path, "Q8_0")
    chosen = plan(model_files.read(folder), options())
    assert chosen.family == family
    assert chosen.method is Method.CROSS_ENCODER
    assert chosen.score_range == "[0,1]"
    assert chosen.hf_overrides.get("classifier_from_token") is None
    assert (chosen.template is not None) == (family == "qwen3")


def test_fused_attention_is_taken_apart(xlm_roberta: Path, tmp_path: Path) -> None:
    def fuse(_: dict[str, Any], tensors: dict[str, Array]) -> None:
        for index in range(2):
            for end in ("weight", "bias"):
                parts = [tensors.pop(f"blk.{index}.attn_{part}.{end}") for part in "qkv"]
                tensors[f"blk.{index}.attn_qkv.{end}"] = np.concatenate(parts)

    apart = read(converted(xlm_roberta, tmp_path / "apart", "Q8_0"))
    fused = read(converted(xlm_roberta, tmp_path / "fused", "Q8_0", fuse))
    assert apart.keys() == fused.keys()
    for name in apart:
        np.testing.assert_array_equal(fused[name], apart[name], err_msg=name)


@pytest.mark.parametrize("tied", [True, False])
def test_an_older_qwen3_reranker_keeps_its_whole_head(tmp_path: Path, tied: bool) -> None:
    """Files from before llama.cpp knew rerankers: no cls.output, and output.weight where it is not tied."""
    source = gguf_models.qwen3(tmp_path / "original", tied=tied)
    head = load_file(source / "model.safetensors").get("lm_head.weight")

    def older(pairs: dict[str, Any], tensors: dict[str, Array]) -> None:
        del tensors["cls.output.weight"], pairs["qwen3.classifier.output_labels"]
        if head is not None:
            tensors["output.weight"] = head

    new = read(converted(source, tmp_path / "new", "F16"))
    old = read(converted(source, tmp_path / "old", "F16", older))
    assert new.keys() == old.keys()
    np.testing.assert_array_equal(old["score.weight"], new["score.weight"])


def test_labels_in_the_other_order_are_heeded(qwen3: Path, tmp_path: Path) -> None:
    def turn(pairs: dict[str, Any], tensors: dict[str, Array]) -> None:
        pairs["qwen3.classifier.output_labels"] = ["no", "yes"]
        tensors["cls.output.weight"] = tensors["cls.output.weight"][::-1].copy()

    expected = read(converted(qwen3, tmp_path / "as-is"))["score.weight"]
    np.testing.assert_array_equal(
        read(converted(qwen3, tmp_path / "turned", change=turn))["score.weight"], expected
    )


def drop(*names: str) -> Change:
    def change(_: dict[str, Any], tensors: dict[str, Array]) -> None:
        for name in names:
            del tensors[name]

    return change


def put(**pairs: Any) -> Change:
    def change(found: dict[str, Any], _: dict[str, Array]) -> None:
        found.update({key.replace("__", "."): value for key, value in pairs.items()})

    return change


def resize(name: str, shape: tuple[int, ...]) -> Change:
    def change(_: dict[str, Any], tensors: dict[str, Array]) -> None:
        tensors[name] = np.ones(shape, np.float32)

    return change


HEAD = ("cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias")
XLM_REFUSALS: list[tuple[Change, Reason, str]] = [
    (drop(*HEAD), Reason.NOT_A_RERANKER, "no classification head"),
    (drop("cls.weight", "cls.bias"), Reason.NOT_A_RERANKER, "no classification head"),
    (resize("cls.output.weight", (3, 256)), Reason.NOT_A_RERANKER, "3 labels"),
    (drop("blk.1.ffn_up.bias"), Reason.UNSUPPORTED_ARCHITECTURE, "lacks the tensor blk.1.ffn_up.bias"),
    (resize("blk.0.attn_q.weight", (256, 128)), Reason.UNSUPPORTED_ARCHITECTURE, "[256, 128]"),
    (resize("blk.0.attn_q_norm.weight", (256,)), Reason.UNSUPPORTED_ARCHITECTURE, "blk.0.attn_q_norm.weight"),
    (resize("blk.9.ffn_up.bias", (4,)), Reason.UNSUPPORTED_ARCHITECTURE, "1 tensors that the layout"),
    (put(general__architecture="jina-bert-v2"), Reason.UNSUPPORTED_ARCHITECTURE, "jina-bert-v2"),
    (put(tokenizer__ggml__model="bert"), Reason.UNSUPPORTED_ARCHITECTURE, "pooling layer"),
    (put(tokenizer__ggml__model="gpt2"), Reason.UNSUPPORTED_ARCHITECTURE, "tokenizer of kind 'gpt2'"),
    (put(bert__context_length=100), Reason.UNSUPPORTED_ARCHITECTURE, "context length"),
    (put(bert__block_count=4_000_000_000), Reason.UNSUPPORTED_ARCHITECTURE, "4000000000 blocks"),
    (put(bert__attention__head_count=0), Reason.UNSUPPORTED_ARCHITECTURE, "0 attention heads"),
    (put(bert__embedding_length="many"), Reason.FILE_MISSING, "bert.embedding_length"),
    (put(tokenizer__ggml__token_type=[1, 2]), Reason.UNSUPPORTED_ARCHITECTURE, "2 types"),
    (put(tokenizer__ggml__bos_token_id=10**6), Reason.UNSUPPORTED_ARCHITECTURE, "beyond"),
    (put(tokenizer__ggml__scores=[0.5]), Reason.UNSUPPORTED_ARCHITECTURE, "without scores"),
    (
        put(tokenizer__ggml__precompiled_charsmap=b"\xff\xff\xff\x7fnonsense"),
        Reason.TOKENIZER_INVALID,
        "not work",
    ),
]


@pytest.mark.parametrize(
    ("change", "reason", "words"), XLM_REFUSALS, ids=[words for *_, words in XLM_REFUSALS]
)
def test_what_is_not_exactly_an_xlm_roberta_reranker_is_refused(
    xlm_roberta: Path, tmp_path: Path, change: Change, reason: Reason, words: str
) -> None:
    def both(pairs: dict[str, Any], tensors: dict[str, Array]) -> None:
        pairs["general.source.repo_url"] = "https://huggingface.co/BAAI/bge-reranker-v2-m3"
        change(pairs, tensors)

    with pytest.raises(Failure) as caught:
        converted(xlm_roberta, tmp_path, change=both)
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert caught.value.message.endswith("Use the original repository BAAI/bge-reranker-v2-m3 instead.")
    assert not (tmp_path / "model" / "model.safetensors").exists()


def language_model(pairs: dict[str, Any], tensors: dict[str, Array]) -> None:
    drop("cls.output.weight")(pairs, tensors)
    pairs["general.name"] = "Qwen3 0.6B"


def unnamed(pairs: dict[str, Any], _: dict[str, Array]) -> None:
    del pairs["qwen3.classifier.output_labels"]
    pairs["general.name"] = "Qwen3 0.6B"


QWEN_REFUSALS: list[tuple[Change, Reason, str]] = [
    (language_model, Reason.NOT_A_RERANKER, "language or embedding model"),
    (unnamed, Reason.NOT_A_RERANKER, "cls.output with these labels"),
    (put(qwen3__classifier__output_labels=["bad", "good"]), Reason.NOT_A_RERANKER, "yes and no"),
    (put(qwen3__rope__scaling__type="yarn"), Reason.UNSUPPORTED_ARCHITECTURE, "yarn"),
    (put(qwen3__attention__head_count_kv=3), Reason.UNSUPPORTED_ARCHITECTURE, "3 groups"),
    (put(qwen3__attention__value_length=64), Reason.UNSUPPORTED_ARCHITECTURE, "different sizes"),
    (put(tokenizer__ggml__pre="llama-bpe"), Reason.TOKENIZER_INVALID, "llama-bpe"),
    (put(tokenizer__ggml__merges=["a b c"]), Reason.UNSUPPORTED_ARCHITECTURE, "merge"),
    (put(tokenizer__ggml__merges=["never seen"]), Reason.TOKENIZER_INVALID, "not work"),
    (resize("blk.0.attn_q.bias", (512,)), Reason.UNSUPPORTED_ARCHITECTURE, "blk.0.attn_q.bias"),
]


@pytest.mark.parametrize(
    ("change", "reason", "words"), QWEN_REFUSALS, ids=[words for *_, words in QWEN_REFUSALS]
)
def test_what_is_not_exactly_a_qwen3_reranker_is_refused(
    qwen3: Path, tmp_path: Path, change: Change, reason: Reason, words: str
) -> None:
    with pytest.raises(Failure) as caught:
        converted(qwen3, tmp_path, change=change)
    assert caught.value.reason is reason
    assert words in caught.value.message
    # Its metadata names what it was trained from, which is not what to use.
    assert "Qwen3-0.6B-Base" not in caught.value.message
    assert "original repository of Qwen3" in caught.value.message


def test_a_type_that_cannot_be_read_back_is_refused_before_anything_is_written(
    xlm_roberta: Path, tmp_path: Path
) -> None:
    path = gguf_layout.write_gguf(xlm_roberta, tmp_path / "m.gguf", "Q8_0")
    content = path.read_bytes()
    # The type number lies behind the name and two dimensions; Q1_0 takes fewer bytes than Q8_0.
    at = content.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight") + 4 + 16
    assert content[at] == package.GGMLQuantizationType.Q8_0
    path.write_bytes(content[:at] + bytes([package.GGMLQuantizationType.Q1_0]) + content[at + 1 :])
    with pytest.raises(Failure) as caught:
        convert(path, tmp_path / "model")
    assert "Q1_0" in caught.value.message
    assert "which is not read" in caught.value.message
    assert not (tmp_path / "model").exists()


def test_a_scale_that_overflows_is_found(xlm_roberta: Path, tmp_path: Path) -> None:
    def change(_: dict[str, Any], tensors: dict[str, Array]) -> None:
        tensors["cls.weight"] = np.full((256, 256), 3e6, np.float32)

    with pytest.raises(Failure) as caught:
        converted(xlm_roberta, tmp_path, "Q8_0", change)
    assert caught.value.reason is Reason.WEIGHTS_TRUNCATED
    assert "cls.weight" in caught.value.message
    assert list((tmp_path / "model").glob("*.safetensors*")) == []


def test_a_full_disk_is_found_before_anything_is_written(
    xlm_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(Failure) as caught:
        converted(xlm_roberta, tmp_path)
    assert (caught.value.reason, caught.value.retriable) == (Reason.DISK_FULL, True)
    assert list((tmp_path / "model").iterdir()) == []


def test_a_second_conversion_replaces_the_first(xlm_roberta: Path, tmp_path: Path) -> None:
    first = converted(xlm_roberta, tmp_path, "Q8_0")
    before = read(first)
    assert read(converted(xlm_roberta, tmp_path, "F32")).keys() == before.keys()
    assert safetensors_header.read(first / "model.safetensors").parameters_by_dtype.keys() == {"F32"}


# Of the program alone: ru_maxrss would begin with what its parent had.
_MEASURE = """
import re, sys
from pathlib import Path
from rerank_runtime.gguf import convert
from rerank_runtime.options import Device, Method, Options
from rerank_runtime.plan import plan
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_weights(tmp_path: Path) -> None:
    rows, width = 40_000, 512
    source = gguf_models.xlm_roberta(tmp_path / "original", width=width, blocks=1, small=True)

    def grow(pairs: dict[str, Any], tensors: dict[str, Array]) -> None:
        # The same few rows again and again, under fillers: the tokenizer keeps its size.
        more = rows - len(pairs["tokenizer.ggml.tokens"])
        pairs["tokenizer.ggml.tokens"] += [f"[PAD{n}]" for n in range(rows - more, rows)]
        pairs["tokenizer.ggml.scores"] += [-10000.0] * more
        pairs["tokenizer.ggml.token_type"] += [5] * more
        tensors["token_embd.weight"] = np.resize(tensors["token_embd.weight"], (rows, width))

    path = gguf_layout.write_gguf(source, tmp_path / "m.gguf", "Q8_0", change=grow)
    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, path, tmp_path / "model"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "runtime"},
        cwd=Path(__file__).parents[2],
    )
    grown = int(measured.stdout) * 1024
    written = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert written > rows * width * 2
    assert grown < 25 * 2**20 < written, f"{grown / 2**20:.0f} MiB for {written / 2**20:.0f} MiB of weights"
