"""What the demo applies: the two example files, or the same two objects for another model."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

API_VERSION = "rerank.dev/v1alpha1"
EXAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "examples"
NAMESPACE = "default"


@dataclass(frozen=True)
class Subject:
    """A model and a key for it."""

    model: dict[str, Any]
    key: dict[str, Any]
    files: tuple[Path, ...] = ()
    """Where the two come from, where they come from files."""

    @property
    def model_name(self) -> str:
        return str(self.model["metadata"]["name"])

    @property
    def secret_name(self) -> str:
        return str(self.key["spec"]["secret"]["name"])


def subject(repo: str | None) -> Subject:
    """The example model and key; with `repo` (organisation/name on the hub), that model on the CPU."""
    if repo is not None:
        return Subject(model_of(repo), key_for(model_name(repo)))
    files = (EXAMPLES / "01-model.yaml", EXAMPLES / "02-api-key.yaml")
    model, key = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in files)
    return Subject(model, key, files)


def model_name(repo: str) -> str:
    """A name for the model of a repository: `BAAI/bge-reranker-v2-m3` becomes `bge-reranker-v2-m3`."""
    name = re.sub(r"[^a-z0-9]+", "-", repo.rpartition("/")[2].lower())
    return name[:63].strip("-")


def model_of(repo: str) -> dict[str, Any]:
    """A ModelDeployment for a repository of the hub."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": model_name(repo), "namespace": NAMESPACE},
        "spec": {
            "model": {"huggingFace": {"repo": repo}},
            "replicas": 1,  # said, so that a model that somebody scaled to zero starts again
            "resources": {"gpu": {"count": 0}, "cpu": "500m"},
        },
    }


def key_for(model: str) -> dict[str, Any]:
    """An APIKey that may call one model."""
    name = f"demo-{model}"[:63].strip("-")
    return {
        "apiVersion": API_VERSION,
        "kind": "APIKey",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"description": "made by the demo", "models": [model], "secret": {"name": name}},
    }
