"""A model's directory as one value: everything that the plan decides from, and nothing of the weights
themselves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rerank_runtime import safetensors_header
from rerank_runtime.failure import Failure, Reason

# Where sentence-transformers keeps a model's length limit; the name depends on the architecture that saved
# it, and vLLM takes the first that exists (transformers_utils/config.py:
# get_sentence_transformer_tokenizer_config).
LENGTH_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class ModelFiles:
    """What a model directory says about its model."""

    config: dict[str, Any]
    """config.json."""
    shapes: dict[str, tuple[int, ...]]
    """Shape of each tensor in the weights, by name."""
    parameters: int
    weights_bytes: int
    dtype: str
    """Dtype of most parameters, in safetensors' names: F32, F16, BF16…"""
    has_tokenizer: bool
    """tokenizer.json is there."""
    tokenizer_config: dict[str, Any] = field(default_factory=dict)
    modules: tuple[dict[str, Any], ...] | None = None
    """modules.json of sentence-transformers, or None."""
    pooling: dict[str, Any] = field(default_factory=dict)
    """Configuration of the Pooling module."""
    sentence_transformers: dict[str, Any] = field(default_factory=dict)
    """config_sentence_transformers.json."""
    max_sequence_length: int | None = None
    """sentence-transformers' limit in tokens."""


def read(directory: Path) -> ModelFiles:
    """Gather what a model directory says.

    Raises:
        Failure: `FileMissing` where a needed file is absent or no JSON, `WeightsTruncated` where one is cut
        short.
    """
    if not directory.is_dir():
        raise Failure(
            Reason.FILE_MISSING, f"There is no directory {directory}: check the volume and its path."
        )
    config = _json(directory / "config.json")
    if config is None:
        raise Failure(
            Reason.FILE_MISSING, "There is no config.json: this is not a model in Hugging Face's layout."
        )
    headers = [safetensors_header.read(path) for path in weights(directory)]
    counts: dict[str, int] = {}
    for header in headers:
        for dtype, count in header.parameters_by_dtype.items():
            counts[dtype] = counts.get(dtype, 0) + count
    modules = _modules(directory / "modules.json")
    return ModelFiles(
        config=config,
        shapes={name: shape for header in headers for name, shape in header.shapes.items()},
        parameters=sum(counts.values()),
        weights_bytes=sum(header.size for header in headers),
        dtype=max(counts, key=lambda dtype: counts[dtype], default=""),
        has_tokenizer=(directory / "tokenizer.json").is_file(),
        tokenizer_config=_json(directory / "tokenizer_config.json") or {},
        modules=modules,
        pooling=_pooling(directory, modules or ()),
        sentence_transformers=_json(directory / "config_sentence_transformers.json") or {},
        max_sequence_length=_length(directory),
    )


def weights(directory: Path) -> list[Path]:
    """The safetensors files that make up the model, every one of them present.

    Raises:
        Failure: `FileMissing` where there are none, or an index names one that is absent.
    """
    index = _json(directory / "model.safetensors.index.json")
    if index is not None:
        names = sorted({str(name) for name in index.get("weight_map", {}).values()})
        absent = [name for name in names if not (directory / name).is_file()]
        if absent or not names:
            listed = ", ".join(absent[:3]) or "nothing"
            raise Failure(
                Reason.FILE_MISSING, f"model.safetensors.index.json names weights that are absent: {listed}."
            )
        return [directory / name for name in names]
    whole = directory / "model.safetensors"
    if not whole.is_file():
        raise Failure(
            Reason.FILE_MISSING,
            "There is no model.safetensors. Other formats (pytorch_model.bin, ONNX, GGUF) are not loaded: "
            "convert the model, or choose a revision that has safetensors.",
        )
    return [whole]


def _json(path: Path) -> dict[str, Any] | None:
    content = _parsed(path)
    if content is not None and not isinstance(content, dict):
        raise Failure(Reason.FILE_MISSING, f"{path.name} is not a JSON object.")
    return content


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Failure(Reason.FILE_MISSING, f"{path.name} is not valid JSON.") from error


def _modules(path: Path) -> tuple[dict[str, Any], ...] | None:
    content = _parsed(path)
    if content is None:
        return None
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise Failure(Reason.FILE_MISSING, "modules.json is not a list of modules.")
    return tuple(content)


def _pooling(directory: Path, modules: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    for module in modules:
        if str(module.get("type", "")).endswith(".Pooling"):
            path = PurePosixPath(str(module.get("path", "")))
            # By name alone: in a hub's cache every file is a link to elsewhere.
            if path.is_absolute() or ".." in path.parts:
                raise Failure(Reason.FILE_MISSING, "modules.json points outside the model's directory.")
            return _json(directory / path / "config.json") or {}
    return {}


def _length(directory: Path) -> int | None:
    for name in LENGTH_FILES:
        content = _json(directory / name)
        if content is not None:
            limit = content.get("max_seq_length")
            return int(limit) if isinstance(limit, int) and limit > 0 else None
    return None
