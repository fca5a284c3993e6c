"""The other proxies: the one that one would write first, and LiteLLM's, in an environment of its own."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench import programs, workload
from bench.programs import ROOT, Program

_LITELLM = ROOT / ".venv-litellm" / "bin" / "python"
_MASTER_KEY = "sk-bench"


@contextlib.contextmanager
def plain(engine: Program) -> Iterator[Program]:
    """`plain_proxy.py`: no keys, no checks, bodies passed through."""
    port = programs.free_port()
    environment = {"BENCH_PORT": str(port), "BENCH_ENGINE": f"http://127.0.0.1:{engine.port}"}
    with programs.started("-m", "bench.plain_proxy", port=port, environment=environment) as program:
        yield program


def litellm_is_installed() -> bool:
    """`make bench` installs it; where that failed, the table does without."""
    return _LITELLM.exists()


@contextlib.contextmanager
def litellm(engine: Program) -> Iterator[tuple[Program, str]]:
    """LiteLLM's proxy and its master key: hosted_vllm provider, one worker, no database."""
    model = {
        "model_name": workload.MODEL,
        "litellm_params": {
            "model": f"hosted_vllm/{workload.MODEL}",
            "api_base": f"http://127.0.0.1:{engine.port}",
            "api_key": "none",
        },
    }
    config = {"model_list": [model], "general_settings": {"master_key": _MASTER_KEY}}
    port = programs.free_port()
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(yaml.safe_dump(config))
        arguments = ["--config", str(path), "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
        with programs.started(
            str(_LITELLM.with_name("litellm")),
            *arguments,
            port=port,
            python=str(_LITELLM),
            environment=environment,
        ) as program:
            yield program, _MASTER_KEY
