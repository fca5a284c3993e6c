"""Memory limits as cgroups of both versions tell them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_runtime import memory_limit


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
