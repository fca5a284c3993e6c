"""What the session's fixtures hand to tests."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.cluster import SYSTEM
from tests.cluster.harness.kubectl import Shell

RELEASE = "rerank-operator"
HUB = "http://demo-hub.demo-hub.svc"
FROM_GGUF = "rerank-test-gguf"
"""Namespace of the models that are made from GGUF files."""
INSTRUCTION = "Given a question about animals, find the passages that answer it"


@dataclass(frozen=True)
class Tutorial:
    """The two example files applied, and their model Ready."""

    key: str
    """Of the example, for the model `minilm` alone."""
    key_for_all: str
    """Of an APIKey in the same namespace that names no models."""
    phases: list[str]
    """Each phase that the model was seen in, in order."""


@dataclass(frozen=True)
class Served:
    """A model that serves, in a namespace of its own, and a key for it."""

    name: str
    namespace: str
    key: str


@dataclass(frozen=True)
class Release:
    """The chart, installed with helm as a user does."""

    shell: Shell
    chart: Path
    tag: str
    audit_start: int
    """Where the audit log ended before the installation."""

    def upgrade(self, *sets: str, seconds: int = 240) -> None:
        """Install or upgrade, and wait until operator and gateway are there.

        Args:
            sets: further values as KEY=VALUE, which hold for this call alone.
            seconds: the deadline.
        """
        values = {
            "image.tag": self.tag,
            "huggingFace.endpoint": HUB,
            # A node with a pretended GPU has none that CUDA could use: the image for the CPU stands in.
            "runtime.images.cuda": f"rerank-runtime:{self.tag}-cpu",
            "policy.extraArgs[0]": "--max-num-seqs",
            "operator.resources.requests.cpu": "20m",
            "gateway.resources.requests.cpu": "20m",
        }
        words = [f"--set-string={key}={value}" for key, value in values.items()]
        words += [f"--set={each}" for each in sets]
        self.shell.run(
            *("helm", "upgrade", "--install", RELEASE, str(self.chart), f"--namespace={SYSTEM}"),
            *words,
            *("--wait", f"--timeout={seconds}s"),
            seconds=seconds + 30,
        )
