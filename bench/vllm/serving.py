"""A model served by `rerank-runtime serve` with a vLLM of its own, as in a pod, but for the flags that are
tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from parity import processes
from parity.serving import ROOT, pythonpath

_START_SECONDS = 600.0
_TICK = os.sysconf("SC_CLK_TCK")
_RUNTIME = "from rerank_runtime.cli import main; main()"


@dataclass(frozen=True)
class Setting:
    """What is tried.

    Args:
        group: The question.
        label: The answer that is tried.
        model: Directory of the model.
        options: Of `rerank-runtime serve`.
        flags: Of vLLM that differ from the plan's; None takes one away, "" gives one without a value.
        environment: Variables that differ.
        chunk: Documents of one request.
        query: The query.
    """

    group: str
    label: str
    model: Path
    options: tuple[str, ...] = ()
    flags: Mapping[str, str | None] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    chunk: int = 32
    query: str = ""

    @property
    def engine(self) -> str:
        """What tells its engine from others."""
        return json.dumps([str(self.model), self.options, dict(self.flags), dict(self.environment)])


@dataclass(frozen=True)
class Engine:
    """A server that answers on a port; `pid` is its first process, the runtime."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """What its processes have used so far."""
        return sum(_cpu(entry) for entry in Path("/proc").glob("[0-9]*") if _descends(entry, self.pid))


@contextlib.contextmanager
def serving(python: Path, work: Path, setting: Setting) -> Iterator[Engine]:
    """Serve until the end of the block."""
    port, status_port = processes.free_port(), processes.free_port()
    command: list[str | Path] = [python, "-c", _RUNTIME, "serve", setting.model, "--name=bench"]
    command += [f"--port={port}", f"--status-port={status_port}", *setting.options]
    environment = pythonpath() | {
        "PATH": f"{_program(python, work)}{os.pathsep}{os.environ['PATH']}",
        "BENCH_FLAGS": json.dumps(dict(setting.flags)),
        "OMP_NUM_THREADS": "1",
        # Random weights rank nothing.
        "RERANK_VERIFICATION": json.dumps({"mode": "Off"}),
        **setting.environment,
    }
    environment["PYTHONPATH"] += f"{os.pathsep}{_plugin(work)}"
    log = work / "engine.log"
    with processes.Process(command, log, environment, ROOT) as pod:
        ready = f"http://127.0.0.1:{status_port}/readyz"
        pod.wait_for(lambda: processes.ask(ready).status == 200, "engine", _START_SECONDS)
        yield Engine(port, pod.pid)


def _program(python: Path, work: Path) -> Path:
    folder = work / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "vllm"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -m bench.vllm.changed_flags "$@"\n')
    program.chmod(0o755)
    return folder


def _plugin(work: Path) -> Path:
    """A folder in which Python finds the entry points of our wheel, which is not installed here."""
    folder = work / "plugin"
    about = folder / "rerank_operator-0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rerank-operator\nVersion: 0\n")
    (about / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nrerank = rerank_runtime.vllm_plugin:register\n"
    )
    return folder


def _stat(entry: Path) -> list[str]:
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _descends(entry: Path, ancestor: int) -> bool:
    seen = int(entry.name)
    while seen > 1:
        if seen == ancestor:
            return True
        fields = _stat(Path(f"/proc/{seen}"))
        if not fields:
            return False
        seen = int(fields[1])
    return False


def _cpu(entry: Path) -> float:
    fields = _stat(entry)
    return (int(fields[11]) + int(fields[12])) / _TICK if fields else 0.0
