"""The chart, rendered by the real helm."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.render import helm_path, template_command

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


@pytest.fixture(scope="session")
def helm() -> Path:
    return helm_path()


@pytest.fixture(scope="session")
def render_text(helm: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run `helm template` with `--set-json` values; the caller looks at its result."""

    def run(*values: str) -> "subprocess.CompletedProcess[str]":
        settings = [part for value in values for part in ("--set-json", value)]
        command = [*template_command(helm), *settings]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def render(render_text: Callable[..., "subprocess.CompletedProcess[str]"]) -> Render:
    """The objects that the chart makes with some values."""

    def run(*values: str) -> Objects:
        result = render_text(*values)
        assert result.returncode == 0, result.stderr
        # libyaml's loader: a chart takes ten times longer to read in Python than to render.
        return [item for item in yaml.load_all(result.stdout, Loader=yaml.CSafeLoader) if item]

    return run


@pytest.fixture(scope="session")
def objects(render: Render) -> Objects:
    """The objects with the default values."""
    return render()
