"""vLLM's command line and environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rerank_runtime import engine
from rerank_runtime.options import Device
from tests.rerank_runtime.support import serve_plan


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
        "--renderer-num-workers=2",
        "--enforce-eager",
        "--kv-cache-memory-bytes=268435456",
    ]


def test_the_engine_s_command_for_a_language_model() -> None:
    plan = serve_plan(
        template="{{ x }}",
        hf_overrides={"classifier_from_token": ["no", "yes"]},
        pooler_config={"use_activation": False},
        split=2,
        gpu_memory_utilization=0.5,
        kv_cache_bytes=2**30,
        remote_code=True,
    )
    told: dict[str, Any] = {
        "model": Path("/m"),
        "name": "m",
        "host": "::",
        "port": 1,
        "template_path": Path("/t"),
    }
    assert engine.command(plan, **told, device=Device.CUDA)[-7:] == [
        "--renderer-num-workers=4",
        "--chat-template=/t",
        '--hf-overrides={"classifier_from_token": ["no", "yes"]}',
        '--pooler-config={"use_activation": false}',
        "--tensor-parallel-size=2",
        "--gpu-memory-utilization=0.5",
        "--trust-remote-code",
    ]
    assert engine.command(plan, **told, device=Device.CPU)[-1] == "--kv-cache-memory-bytes=1073741824"


def test_further_flags_come_before_the_runtime_s_own() -> None:
    extra = ["--seed=1", "--dtype=half"]
    command = engine.command(
        serve_plan(), model=Path("/m"), name="m", device=Device.CUDA, host="::", port=1, extra=extra
    )
    assert command[:6] == ["vllm", "serve", "/m", *extra, "--served-model-name=m"]
    assert command.index("--dtype=half") < command.index("--dtype=float32")


def test_a_template_needs_a_file() -> None:
    with pytest.raises(ValueError, match="no file was named"):
        engine.command(
            serve_plan(template="x"), model=Path("/m"), name="m", device=Device.CPU, host="::", port=1
        )


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
    assert cpu["OMP_WAIT_POLICY"] == "PASSIVE"
    assert cpu["HF_HUB_OFFLINE"] == "1"
    assert cpu["RERANK_INTERNAL_TOKEN"] == "new"
    assert not {"HF_TOKEN", "VLLM_API_KEY"} & cpu.keys()
    assert "VLLM_CPU_OMP_THREADS_BIND" not in engine.environment({}, device=Device.CUDA, internal_token="new")


def test_what_the_configuration_leaves_out_is_told_in_one_argument() -> None:
    plan = serve_plan(hf_overrides={"position_embedding_type": "absolute"})
    command = engine.command(plan, model=Path("/m"), name="m", device=Device.CUDA, host="::", port=1)
    assert command[-1] == '--hf-overrides={"position_embedding_type": "absolute"}'
