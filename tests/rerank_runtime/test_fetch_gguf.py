"""A GGUF file is chosen, fetched, checked and converted; what is served is a normal folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerank_runtime import model_files, plan, wanted
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import Options
from tests.rerank_runtime import faulty_hub, gguf_layout, gguf_models
from tests.rerank_runtime.faulty_hub import FaultyHub, answer, refused, run, settings

REPO = "acme/ranker-GGUF"
CHOSEN = "ranker-Q8_0.gguf"


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    made = tmp_path_factory.mktemp("gguf")
    original = gguf_models.xlm_roberta(made / "original")
    files: dict[str, bytes] = {"README.md": b"Quantised.\n"}
    for kind in ("F16", "Q8_0"):
        path = gguf_layout.write_gguf(original, made / f"{kind}.gguf", kind)
        files[f"ranker-{kind}.gguf"] = path.read_bytes()
    hub = FaultyHub(tmp_path_factory.mktemp("hub"))
    with faulty_hub.environment_kept(), hub.listening():
        hub.publish(files, REPO)
        yield hub


@pytest.fixture
def hub(listening: FaultyHub) -> FaultyHub:
    listening.reset()
    return listening


def test_the_file_that_was_asked_for_is_converted(hub: FaultyHub, tmp_path: Path) -> None:
    status = run(settings(hub, tmp_path, repo=REPO, file="*Q8_0.gguf"))
    assert [seen.name for seen in hub.seen] == [CHOSEN]
    assert status.source is not None
    assert status.source.file == CHOSEN
    assert status.message == ""
    model = tmp_path / "model"
    assert plan.plan(model_files.read(model), Options()).architecture == "XLMRobertaForSequenceClassification"
    source = json.loads((tmp_path / "source.json").read_text())
    assert source["gguf"] == {"file": CHOSEN, "quantisation": "Q8_0"}
    # Converted files have no hash at the hub, only a size.
    assert source["files"]["model.safetensors"] == {"size": (model / "model.safetensors").stat().st_size}
    # The GGUF file itself is not kept.
    assert list(tmp_path.rglob("*.gguf")) == []


def test_what_was_converted_is_not_converted_again(hub: FaultyHub, tmp_path: Path) -> None:
    chosen = settings(hub, tmp_path, repo=REPO, file="*Q8_0.gguf", store=tmp_path / "store")
    run(chosen)
    made = (tmp_path / "model" / "model.safetensors").stat()
    hub.seen.clear()
    pinned = hub.hub.repositories[REPO].branches["main"]
    hub.faults.append(answer(503, lambda _request: True))
    other = settings(
        hub, tmp_path / "b", repo=REPO, file="*Q8_0.gguf", store=tmp_path / "store", revision=pinned
    )
    status = run(other)
    assert status.source is not None
    assert status.source.file == CHOSEN
    again = (tmp_path / "b" / "model" / "model.safetensors").stat()
    assert (again.st_ino, again.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_another_choice_has_another_folder(hub: FaultyHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for name, pattern in (("a", "*Q8_0.gguf"), ("b", "*F16.gguf")):
        run(settings(hub, tmp_path / name, repo=REPO, file=pattern, store=store))
    assert (tmp_path / "a" / "model").resolve() != (tmp_path / "b" / "model").resolve()


def test_a_file_that_is_no_model_is_a_condition(hub: FaultyHub, tmp_path: Path) -> None:
    hub.publish({"ranker-Q8_0.gguf": b"GGUF" + b"\xff" * 400}, "acme/broken-GGUF")
    failure = refused(settings(hub, tmp_path, repo="acme/broken-GGUF"))
    assert not failure.retriable
    assert "ranker-Q8_0.gguf" in failure.message


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        (["config.json", "model.safetensors", "x.gguf"], None, ["config.json", "model.safetensors"]),
        (["config.json", "model.safetensors", "x.gguf"], "*.gguf", ["x.gguf", "config.json"]),
        (["README.md", "x-F16.gguf", "modules.json"], None, ["x-F16.gguf"]),
        (["x.gguf", "tokenizer.json", "onnx/model.safetensors"], None, ["x.gguf", "tokenizer.json"]),
    ],
)
def test_safetensors_come_first_unless_gguf_is_asked_for(
    names: list[str], pattern: str | None, expected: list[str]
) -> None:
    assert list(wanted.choose(names, pattern).names) == expected


def test_python_files_come_only_where_they_may_run() -> None:
    names = ["config.json", "model.safetensors", "modeling_x.py"]
    assert "modeling_x.py" not in wanted.choose(names, None).names
    assert "modeling_x.py" in wanted.choose(names, None, python=True).names


def test_neither_form_is_a_refusal() -> None:
    with pytest.raises(Failure) as refusal:
        wanted.choose(["config.json", "pytorch_model.bin"], None)
    assert refusal.value.reason == Reason.INVALID_SOURCE
