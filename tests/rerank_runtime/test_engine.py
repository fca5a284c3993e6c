"""vLLM's command line and environment."""

from __future__ import annotations

from pathlib import Path

from rerank_runtime import engine
from rerank_runtime.plan import Device
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


def test_what_the_configuration_leaves_out_is_told_in_one_argument() -> None:
    plan = serve_plan(hf_overrides={"position_embedding_type": "absolute"})
    command = engine.command(plan, model=Path("/m"), name="m", device=Device.CUDA, host="::", port=1)
    assert command[-1] == '--hf-overrides={"position_embedding_type": "absolute"}'
