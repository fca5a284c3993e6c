"""vLLM's processes fork where their threads are not bound.

vLLM itself is on the images only: its platform is a class of the same shape here; tests on the node run the
real one.
"""

import importlib
import os
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from rerank_runtime import vllm_plugin


class Platform:
    """As vllm.platforms.cpu.CpuPlatform does it."""

    seen: list[object] = []

    @classmethod
    def is_cpu(cls) -> bool:
        return True

    @classmethod
    def check_and_update_config(cls, config: object) -> None:
        cls.seen.append(config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> type[Platform]:
    """A fresh platform, which a module `vllm.platforms` offers."""

    class Fresh(Platform):
        seen: list[object] = []

    module = ModuleType("vllm.platforms")
    module.current_platform = Fresh()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", module)
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "")
    return Fresh


@pytest.mark.parametrize(
    ("binding", "on_cpu", "method"),
    [("nobind", True, "fork"), ("auto", True, "spawn"), ("0-3", True, "spawn"), ("nobind", False, "spawn")],
)
def test_it_forks_on_a_cpu_with_unbound_threads(
    platform: type[Platform], monkeypatch: pytest.MonkeyPatch, binding: str, on_cpu: bool, method: str
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", binding)
    monkeypatch.setattr(platform, "is_cpu", classmethod(lambda _: on_cpu))
    vllm_plugin.register()
    platform.check_and_update_config("config")
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == method
    assert platform.seen == ["config"]


def test_registered_in_every_process_it_wraps_once(
    platform: type[Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked process has inherited the wrapped class and registers again."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    for _ in range(3):
        vllm_plugin.register()
    once = platform.check_and_update_config
    vllm_plugin.register()
    assert platform.check_and_update_config is once


def test_the_wheel_names_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["vllm.general_plugins"]["rerank"].partition(":")
    assert getattr(importlib.import_module(module), name) is vllm_plugin.register
