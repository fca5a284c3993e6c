"""vLLM's processes fork where their threads are not bound, and sleep between messages.

vLLM itself is on the images only: its classes are of the same shape here; tests/parity and the tests on the
node run the real ones.
"""

import importlib
import logging
import os
import sys
import time
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


class Socket:
    taken = 0

    def recv(self) -> None:
        self.taken += 1


class Poller:
    """As zmq.Poller: what has happened, at once."""

    def __init__(self) -> None:
        self.ready: list[object] = []
        self.limits: list[int | None] = []

    def poll(self, timeout: int | None) -> list[tuple[object, int]]:
        self.limits.append(timeout)
        return [(socket, 1) for socket in self.ready]


class SpinCondition:
    """As vllm.distributed.device_communicators.shm_broadcast.SpinCondition has it, for a reader."""

    def __init__(self, busy_loop_s: float = 1) -> None:
        self.last_read = time.monotonic()
        self.busy_loop_s = busy_loop_s
        self.local_notify_socket, self.read_cancel_socket = Socket(), Socket()
        self.poller = Poller()
        self.spins = 0

    def wait(self, timeout_ms: int | None = None) -> None:
        if time.monotonic() <= self.last_read + self.busy_loop_s:
            self.spins += 1
        elif self.local_notify_socket in dict(self.poller.poll(timeout_ms)):
            self.local_notify_socket.recv()


@pytest.fixture
def condition(monkeypatch: pytest.MonkeyPatch) -> type[SpinCondition]:
    """A fresh condition, which vLLM's module offers."""

    class Fresh(SpinCondition):
        wait = SpinCondition.wait

    module = ModuleType("shm_broadcast")
    module.SpinCondition = Fresh  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.distributed", "vllm.distributed.device_communicators"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.distributed.device_communicators.shm_broadcast", module)
    return Fresh


@pytest.fixture
def platform(condition: type[SpinCondition], monkeypatch: pytest.MonkeyPatch) -> type[Platform]:
    """A fresh platform, which a module `vllm.platforms` offers."""

    class Fresh(Platform):
        seen: list[object] = []

    module = ModuleType("vllm.platforms")
    module.current_platform = Fresh()  # type: ignore[attr-defined]
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


@pytest.mark.parametrize("binding", ["nobind", "auto"])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_readers_sleep_on_a_cpu_only(
    platform: type[Platform],
    condition: type[SpinCondition],
    monkeypatch: pytest.MonkeyPatch,
    on_cpu: bool,
    binding: str,
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", binding)
    monkeypatch.setattr(platform, "is_cpu", classmethod(lambda _: on_cpu))
    vllm_plugin.register()
    reader = condition()
    reader.wait()
    assert (reader.spins, len(reader.poller.limits)) == ((0, 1) if on_cpu else (1, 0))


@pytest.mark.parametrize(("asked", "limit"), [(None, 5), (5000, 5), (2, 2)])
def test_a_reader_looks_by_itself_after_5_ms(
    condition: type[SpinCondition], asked: int | None, limit: int
) -> None:
    vllm_plugin.sleep_between_messages()
    reader = condition()
    reader.wait(asked)
    assert reader.poller.limits == [limit]
    assert reader.local_notify_socket.taken == 0


def test_a_signal_is_taken_and_a_cancellation_left_for_those_who_ask_again(
    condition: type[SpinCondition],
) -> None:
    vllm_plugin.sleep_between_messages()
    reader = condition()
    reader.poller.ready = [reader.read_cancel_socket, reader.local_notify_socket]
    reader.wait(5000)
    assert (reader.local_notify_socket.taken, reader.read_cancel_socket.taken) == (1, 0)


def test_long_after_a_message_it_waits_as_vllm_does(condition: type[SpinCondition]) -> None:
    vllm_plugin.sleep_between_messages()
    reader = condition()
    reader.last_read -= 1.1
    reader.wait(5000)
    assert reader.poller.limits == [5000]


def test_patched_again_it_wraps_once(condition: type[SpinCondition]) -> None:
    vllm_plugin.sleep_between_messages()
    once = condition.wait
    vllm_plugin.sleep_between_messages()
    assert condition.wait is once


def test_another_kind_of_waiting_is_left_alone_and_told(
    condition: type[SpinCondition], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wait(self: SpinCondition, timeout_ms: int | None = None) -> None:
        self.poller.poll(timeout_ms)

    monkeypatch.setattr(condition, "wait", wait)
    vllm_plugin.sleep_between_messages()
    assert condition.wait is wait
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "busy_loop_s, last_read, local_notify_socket" in record.message


@pytest.mark.parametrize("gone", ["shm_broadcast", "SpinCondition"])
def test_a_vllm_without_such_readers_starts(
    condition: type[SpinCondition],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gone: str,
) -> None:
    name = "vllm.distributed.device_communicators.shm_broadcast"
    if gone == "shm_broadcast":
        monkeypatch.delitem(sys.modules, name)
    else:
        monkeypatch.delattr(sys.modules[name], gone)
    vllm_plugin.sleep_between_messages()
    [record] = caplog.records
    assert gone in record.message


def test_the_wheel_names_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["vllm.general_plugins"]["rerank"].partition(":")
    assert getattr(importlib.import_module(module), name) is vllm_plugin.register
