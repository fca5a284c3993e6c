"""The cluster's programs are built once, whoever asks for them meanwhile."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dev.cluster import binaries


def test_two_that_need_the_programs_at_once_build_them_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built: list[Path] = []
    second = threading.Event()

    def build(_go: str, folder: Path) -> None:
        built.append(folder)
        if len(built) == 2:
            second.set()
        second.wait(timeout=1)  # time for the other to come this far, if anything let it
        folder.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(binaries, "_build", build)
    with ThreadPoolExecutor(2) as pool:
        answers = [asked.result(timeout=60) for asked in [pool.submit(binaries.binaries) for _ in range(2)]]

    assert built == [answers[0]]
    assert answers[0] == answers[1]
