"""How much memory this container may use, and whether the kernel killed something in it for want of it."""

from __future__ import annotations

from pathlib import Path

# cgroup v1 says "no limit" by a number near 2**63.
_NO_LIMIT = 2**60
_ROOT = Path("/sys/fs/cgroup")


def read(root: Path = _ROOT) -> int | None:
    """The memory limit in bytes, or None."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _text(root / name)
        if text.isdecimal():
            return int(text) if int(text) < _NO_LIMIT else None
    return None


def kills(root: Path = _ROOT) -> int:
    """How many processes of this container the kernel has killed for want of memory."""
    for name in ("memory.events", "memory/memory.oom_control"):
        for line in _text(root / name).splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.isdecimal():
                return int(value)
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
