"""The small modules: selection, progress, status, termination message, memory limit, engine command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerank_runtime import engine, memory_limit, progress, selection, termination
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.plan import Device
from rerank_runtime.status import Download, Phase, Status
from tests.rerank_runtime.support import serve_plan

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
        ([*BASE, "pytorch_model.bin"], "no safetensors weights"),
        ([*BASE, "model-00001-of-00002.safetensors"], "no safetensors weights"),
    ],
)
def test_refuses_a_repository_without_a_model(names: list[str], says: str) -> None:
    with pytest.raises(Failure, match=says) as refusal:
        selection.select(names)
    assert refusal.value.reason == Reason.INVALID_SOURCE


@pytest.mark.parametrize(
    ("seen", "done", "eta"),
    [
        ([], 0, None),
        ([(0.0, 0)], 0, None),
        ([(0.0, 0), (10.0, 100)], 100, 91),
        ([(0.0, 0), (10.0, 100), (40.0, 400), (70.0, 400)], 400, None),
        ([(0.0, 0), (10.0, 100), (40.0, 400), (70.0, 400), (80.0, 1000)], 1000, 0),
        ([(0.0, 0), (1.0, 1001)], 1000, 0),
    ],
)
def test_progress_estimates_from_the_last_half_minute(
    seen: list[tuple[float, int]], done: int, eta: int | None
) -> None:
    shown = progress.Progress(1000)
    for now, size in seen:
        shown.add(now, size)
    assert shown.done == done
    assert shown.eta_seconds == eta


def test_unfinished_parts_count(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "other").write_bytes(b"123")
    parts = tmp_path / ".cache" / "huggingface" / "download" / "1_Pooling"
    parts.mkdir(parents=True)
    (parts / "x.etag.incomplete").write_bytes(b"1234567")
    assert progress.bytes_on_disk(tmp_path, ["a", "absent"]) == 12


def test_status_leaves_out_what_is_not_known() -> None:
    status = Status(Phase.DOWNLOADING)
    assert status.as_json() == {"phase": "Downloading", "reason": "", "message": "", "inFlight": 0}
    status.download = Download(1, 2, None)
    assert status.as_json()["download"] == {"bytes": 1, "totalBytes": 2}


def test_a_failure_is_past_once_the_next_phase_begins() -> None:
    status = Status(Phase.VERIFYING)
    status.fail(Failure(Reason.SCORES_CONSTANT, "all the same"))
    assert (status.ready, status.reason, status.message) == (False, "ScoresConstant", "all the same")
    status.enter(Phase.READY)
    assert (status.ready, status.reason, status.message) == (True, "", "")


def test_last_words(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    termination.write(Failure(Reason.DISK_FULL, "full", retriable=True), path)
    assert not path.exists()
    path.touch()
    termination.write(Failure(Reason.DISK_FULL, "full", retriable=True), path)
    assert json.loads(path.read_bytes()) == {"reason": "DiskFull", "message": "full", "retriable": True}


def test_long_last_words_stay_json() -> None:
    encoded = termination.encode(Failure(Reason.ENGINE_FAILED, "é" * 5000))
    assert len(encoded) <= 4096
    assert json.loads(encoded)["message"].endswith("…")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("memory.max", "max\n", None),
        ("memory.max", "8589934592\n", 8 * 2**30),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("memory/memory.limit_in_bytes", "1073741824\n", 2**30),
        ("other", "", None),
    ],
)
def test_memory_limit(tmp_path: Path, name: str, content: str, expected: int | None) -> None:
    _write(tmp_path / name, content)
    assert memory_limit.read(tmp_path) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n", 1),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
        ("other", "", 0),
    ],
)
def test_kills_for_memory(tmp_path: Path, name: str, content: str, expected: int) -> None:
    _write(tmp_path / name, content)
    assert memory_limit.kills(tmp_path) == expected


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_the_engine_s_command_on_a_cpu() -> None:
    plan = serve_plan()
    command = engine.command(plan, model=Path("/m"), name="--x", device=Device.CPU, host="0.0.0.0", port=8000)
    assert command == [
        "vllm",
        "serve",
        "/m",
        "--served-model-name=--x",
        "--host=0.0.0.0",
        "--port=8000",
        "--runner=pooling",
        "--convert=classify",
        "--dtype=float32",
        "--max-model-len=512",
        "--load-format=safetensors",
        "--middleware=rerank_runtime.guard.Guard",
        "--disable-uvicorn-access-log",
        "--api-server-count=1",
        "--enforce-eager",
    ]


def test_the_engine_s_environment() -> None:
    inherited = {
        "HF_TOKEN": "hf_x",
        "VLLM_API_KEY": "k",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "RERANK_INTERNAL_TOKEN": "old",
    }
    cpu = engine.environment(inherited, device=Device.CPU, internal_token="new")
    assert cpu["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert cpu["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert cpu["HF_HUB_OFFLINE"] == "1"
    assert cpu["RERANK_INTERNAL_TOKEN"] == "new"
    assert not {"HF_TOKEN", "VLLM_API_KEY"} & cpu.keys()
    assert "VLLM_CPU_OMP_THREADS_BIND" not in engine.environment({}, device=Device.CUDA, internal_token="new")
