"""A head beside the weights is put into them, exactly or not at all."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rerank_runtime import model_files, plan, safetensors_header, scoring_head
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import Options
from tests.rerank_runtime import faulty_hub, head_models
from tests.rerank_runtime.faulty_hub import FaultyHub, run, settings
from tests.rerank_runtime.head_models import WEIGHTS, WIDTH

Array = NDArray[Any]

_gelu = np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))))


def made(tmp_path: Path, source: Path) -> Path:
    target = tmp_path / "made"
    target.mkdir()
    scoring_head.put_in(source, target)
    return target


def normed(values: Array) -> Array:
    centred = values - values.mean(-1, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return result


def published_scores(tensors: dict[str, dict[str, Array]], embeddings: Array) -> Array:
    """As the modules compute them (sentence-transformers: Dense, LayerNorm, Dense)."""
    dense, norm, last = (tensors[f"{name}/{WEIGHTS}"] for name in ("2_Dense", "3_LayerNorm", "4_Dense"))
    hidden = normed(_gelu(embeddings @ dense["linear.weight"].T)) * norm["norm.weight"] + norm["norm.bias"]
    result: Array = hidden @ last["linear.weight"].T + last["linear.bias"]
    return result


def served_scores(tensors: dict[str, Array], embeddings: Array) -> Array:
    """As vLLM's ModernBertForSequenceClassification does without norm_bias."""
    hidden = normed(_gelu(embeddings @ tensors["head.dense.weight"].T)) * tensors["head.norm.weight"]
    result: Array = hidden @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    return result


def test_the_scores_are_those_of_the_modules(tmp_path: Path) -> None:
    tensors = head_models.weights()
    model = made(tmp_path, head_models.write(tmp_path / "published", tensors))
    embeddings = np.random.default_rng(1).standard_normal((50, WIDTH))
    served = load_file(model / WEIGHTS)
    assert np.allclose(
        served_scores(served, embeddings), published_scores(tensors, embeddings), rtol=0, atol=1e-6
    )
    assert served["classifier.bias"].shape == (1,)


def test_the_model_itself_is_copied_bit_by_bit_under_the_names_of_the_class(tmp_path: Path) -> None:
    tensors = head_models.weights()
    model = made(tmp_path, head_models.write(tmp_path / "published", tensors))
    served = load_file(model / WEIGHTS)
    for name, array in tensors[WEIGHTS].items():
        assert served[f"model.{name}"].tobytes() == array.tobytes()
    assert len(served) == len(tensors[WEIGHTS]) + 4
    assert sorted(path.name for path in model.iterdir()) == [
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        WEIGHTS,
        "sentence_bert_config.json",
        "tokenizer.json",
    ]


def test_the_plan_serves_it_and_its_scores_are_logits(tmp_path: Path) -> None:
    published = head_models.write(tmp_path / "published")
    with pytest.raises(Failure, match="Fetched from a hub") as refusal:
        plan.plan(model_files.read(published), Options())
    assert refusal.value.reason == Reason.UNSUPPORTED_ARCHITECTURE
    decided = plan.plan(model_files.read(made(tmp_path, published)), Options())
    assert (decided.family, decided.score_range, decided.context_length) == ("modernbert", "logits", 7999)
    assert decided.hf_overrides == {
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}
    }


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_a_head_in_half_precision_stays_what_it_is(tmp_path: Path, dtype: str) -> None:
    tensors = head_models.weights()
    source = head_models.write(tmp_path / "published", tensors)
    for folder in ("2_Dense", "3_LayerNorm", "4_Dense"):
        name = f"{folder}/{WEIGHTS}"
        # What is left of a number in the shorter type, so that both hold the same.
        halves = {key: array.astype("<f2") for key, array in tensors[name].items()}
        if dtype == "BF16":
            halves = {key: (a.view("<u4") >> 16).astype("<u2") for key, a in tensors[name].items()}
            tensors[name] = {k: (a.astype("<u4") << 16).view("<f4") for k, a in halves.items()}
        else:
            tensors[name] = {key: array.astype("<f4") for key, array in halves.items()}
        write_raw(source / name, halves, dtype)
    model = made(tmp_path, source)
    found = safetensors_header.read(model / WEIGHTS).tensors
    assert found["head.dense.weight"].dtype == dtype
    assert found["classifier.bias"].dtype == "F32"
    bias = tensors[f"4_Dense/{WEIGHTS}"]["linear.weight"] @ tensors[f"3_LayerNorm/{WEIGHTS}"]["norm.bias"]
    start = found["classifier.bias"].start
    (stored,) = struct.unpack("<f", (model / WEIGHTS).read_bytes()[start : start + 4])
    assert stored == pytest.approx(float(bias[0] + tensors[f"4_Dense/{WEIGHTS}"]["linear.bias"][0]), abs=1e-5)


def write_raw(path: Path, arrays: dict[str, Array], dtype: str) -> None:
    tensors = {name: safetensors_header.Tensor(dtype, a.shape, a.nbytes) for name, a in arrays.items()}
    content = b"".join(array.tobytes() for array in arrays.values())
    path.write_bytes(safetensors_header.encode(tensors.items()) + content)


def test_a_model_in_several_files_becomes_one(tmp_path: Path) -> None:
    tensors = head_models.weights()
    body = tensors.pop(WEIGHTS)
    source = head_models.write(tmp_path / "published", tensors)
    index = {}
    for number, (name, array) in enumerate(body.items(), 1):
        index[name] = f"model-0000{number}-of-00003.safetensors"
        save_file({name: array}, source / index[name])
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    model = made(tmp_path, source)
    assert [path.name for path in model.glob("model*")] == [WEIGHTS]
    assert load_file(model / WEIGHTS).keys() >= {f"model.{name}" for name in body}


def changed(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(source: Path) -> None:
        content = json.loads((source / name).read_text())
        (source / name).write_text(json.dumps(content | changes))

    return change


def tensors_of(folder: str, **arrays: Array) -> Callable[[Path], None]:
    return lambda source: save_file(arrays, source / folder / WEIGHTS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed("config.json", norm_eps=1e-12), "norm_eps 1e-12"),
        (changed("config.json", norm_bias=True), "norm_bias True"),
        (changed("1_Pooling/config.json", pooling_mode="mean"), "pools by mean"),
        (changed("2_Dense/config.json", bias=True), "2_Dense is set otherwise .bias: True."),
        (
            changed("2_Dense/config.json", activation_function="torch.nn.modules.activation.Tanh"),
            "activation_function: torch.nn.modules.activation.Tanh",
        ),
        (changed("2_Dense/config.json", use_residual=True), "use_residual: True"),
        (changed("3_LayerNorm/config.json", dimension=4), "3_LayerNorm is set otherwise .dimension: 4"),
        (changed("4_Dense/config.json", out_features=2), "out_features: 2"),
        (changed("4_Dense/config.json", module_output_name="other"), "module_output_name: other"),
        (tensors_of("2_Dense", residual=np.zeros(1, np.float32)), "2_Dense holds other tensors .residual"),
        (tensors_of("4_Dense", **{"linear.weight": np.zeros((1, WIDTH), np.int8)}), "4_Dense holds other"),
        (
            lambda source: save_file({"model.x": np.zeros(1)}, source / WEIGHTS),
            "not named as those of a bare",
        ),
    ],
)
def test_another_head_is_refused(tmp_path: Path, change: Callable[[Path], None], says: str) -> None:
    source = head_models.write(tmp_path / "published")
    change(source)
    with pytest.raises(Failure, match=says) as refusal:
        made(tmp_path, source)
    assert refusal.value.reason == Reason.UNSUPPORTED_ARCHITECTURE
    assert not (tmp_path / "made" / WEIGHTS).exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def elsewhere(source: Path) -> None:
    modules = json.loads((source / "modules.json").read_text())
    modules[2]["path"] = "../published/2_Dense"
    (source / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda source: (source / "3_LayerNorm/config.json").unlink(), Reason.FILE_MISSING),
        (lambda source: (source / "4_Dense" / WEIGHTS).unlink(), Reason.FILE_MISSING),
        (lambda source: cut(source / "4_Dense" / WEIGHTS), Reason.WEIGHTS_TRUNCATED),
        (lambda source: cut(source / WEIGHTS), Reason.WEIGHTS_TRUNCATED),
        (elsewhere, Reason.FILE_MISSING),
    ],
)
def test_a_head_that_is_not_whole_is_refused(
    tmp_path: Path, change: Callable[[Path], None], reason: Reason
) -> None:
    source = head_models.write(tmp_path / "published")
    change(source)
    with pytest.raises(Failure) as refusal:
        made(tmp_path, source)
    assert refusal.value.reason == reason


def test_weights_that_have_no_room_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 10})())
    with pytest.raises(Failure) as refusal:
        made(tmp_path, head_models.write(tmp_path / "published"))
    assert refusal.value.reason == Reason.DISK_FULL
    assert "converted weights need" in refusal.value.message


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    hub = FaultyHub(tmp_path_factory.mktemp("hub"))
    with faulty_hub.environment_kept(), hub.listening():
        yield hub


def published(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in head_models.write(directory).rglob("*")
        if path.is_file()
    }


def test_fetch_puts_the_head_in_and_keeps_the_rest_as_it_is(listening: FaultyHub, tmp_path: Path) -> None:
    files = published(tmp_path / "published")
    listening.publish(files, "acme/ettin")
    chosen = settings(listening, tmp_path / "pod", repo="acme/ettin")
    # What a pod that was killed at it left behind.
    left = chosen.folder(listening.hub.repositories["acme/ettin"].branches["main"]).staging / "model"
    left.mkdir(parents=True)
    (left / "rest.safetensors").write_bytes(b"half")
    status = run(chosen)
    assert status.message == ""
    model = tmp_path / "pod" / "model"
    assert plan.plan(model_files.read(model), Options()).architecture == "ModernBertForSequenceClassification"
    listed = json.loads((tmp_path / "pod" / "source.json").read_text())["files"]
    assert listed.keys() == {path.name for path in model.iterdir()}
    assert {name for name, entry in listed.items() if "hash" not in entry} == set(scoring_head.MADE)
    assert (model / "tokenizer.json").read_bytes() == files["tokenizer.json"]


def test_a_folder_that_was_damaged_is_made_again(listening: FaultyHub, tmp_path: Path) -> None:
    listening.publish(published(tmp_path / "published"), "acme/damaged")
    chosen = settings(listening, tmp_path / "pod", repo="acme/damaged")
    run(chosen)
    weights = tmp_path / "pod" / "model" / WEIGHTS
    whole = weights.read_bytes()
    cut(weights)
    run(chosen)
    assert (tmp_path / "pod" / "model" / WEIGHTS).read_bytes() == whole
    assert plan.plan(model_files.read(tmp_path / "pod" / "model"), Options()).family == "modernbert"


def test_an_embedding_model_with_such_modules_stays_as_it_is(listening: FaultyHub, tmp_path: Path) -> None:
    files = published(tmp_path / "published")
    about = json.loads(files["config_sentence_transformers.json"]) | {"model_type": "SentenceTransformer"}
    files["config_sentence_transformers.json"] = json.dumps(about).encode()
    listening.publish(files, "acme/embedder")
    run(settings(listening, tmp_path / "pod", repo="acme/embedder"))
    assert (tmp_path / "pod" / "model" / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (tmp_path / "pod" / "model" / "3_LayerNorm" / WEIGHTS).is_file()


def test_the_layers_of_a_head_are_fetched_and_a_dense_layer_alone_is_not() -> None:
    head = {f"2_Dense/{WEIGHTS}", f"3_LayerNorm/{WEIGHTS}", f"4_Dense/{WEIGHTS}"}
    assert scoring_head.parts([*head, f"onnx/{WEIGHTS}", "2_Dense/pytorch_model.bin", WEIGHTS]) == head
    assert scoring_head.parts([WEIGHTS, f"2_Dense/{WEIGHTS}"]) == set()
