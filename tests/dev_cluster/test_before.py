"""Putting back what was there before the cluster came up."""

from pathlib import Path

import pytest

from dev.cluster import before
from dev.cluster.paths import Layout


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(before, "_setting", lambda name: tmp_path / "sys" / name)
    monkeypatch.setattr(before, "SETTINGS", ("forward", "unknown"))
    monkeypatch.setattr(before, "FOLDERS", (str(tmp_path / "theirs"), str(tmp_path / "ours")))
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys" / "forward").write_text("0\n")
    (tmp_path / "theirs").mkdir()
    return tmp_path


def test_settings_and_folders_are_as_before(machine: Path) -> None:
    layout = Layout(machine / "state")
    layout.create()
    before.remember(layout)
    (machine / "sys" / "forward").write_text("1")
    (machine / "ours").mkdir()
    (machine / "ours" / "lock").write_text("")
    before.remember(layout)  # a second `up`: what counts is how it was before the first
    before.restore(layout)
    assert (machine / "sys" / "forward").read_text() == "0"
    assert not (machine / "ours").exists()
    assert (machine / "theirs").exists()


def test_nothing_happens_where_nothing_was_remembered(machine: Path) -> None:
    before.restore(Layout(machine / "state"))
    assert (machine / "sys" / "forward").read_text() == "0\n"
