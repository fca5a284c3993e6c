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
from rerank_runtime.tokenizer_file import WORDS, TokenizerFile

# Where sentence-transformers keeps a model's length limit; the name depends on the architecture that saved
# it, and vLLM takes the first that exists (transformers_utils/config.py:
# get_sentence_transformer_tokenizer_config).
LENGTH_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# No configuration that a model needs is larger; tokenizers and weight maps are.
MAX_CONFIG_BYTES = 4 * 2**20
MAX_JSON_BYTES = 256 * 2**20
# Enough of a model card to know the model by.
_CARD_BYTES = 256 * 2**10
_LONGEST_NAME = 100
_POOLING_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


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
    words: dict[str, int] = field(default_factory=dict)
    """Token ids of those words that families of models ask for (tokenizer_file.WORDS)."""
    score_tokens: tuple[str | None, ...] | None = None
    """The words whose logits are the score, the true one first, where modules.json has a LogitScore."""
    chat_template: str = ""
    card: str = ""
    """Start of README.md."""
    names: tuple[str, ...] = ()
    """Name of the repository that the model came from, and of its directory."""
    python: frozenset[str] = frozenset()
    """Python files beside config.json."""

    @property
    def module_kinds(self) -> list[str]:
        """Class names of sentence-transformers' modules, in order."""
        return [str(module.get("type", "")).rsplit(".", 1)[-1] for module in self.modules or ()]

    @property
    def pooling_modes(self) -> list[str]:
        """How token embeddings are pooled, by the names that sentence-transformers gives it now."""
        if isinstance(self.pooling.get("pooling_mode"), str):
            return [str(self.pooling["pooling_mode"])]
        flags = (k for k, value in self.pooling.items() if k.startswith("pooling_mode_") and value is True)
        return [_POOLING_FLAGS.get(key, key.removeprefix("pooling_mode_")) for key in flags]


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
    config = _config(directory)
    headers = [safetensors_header.read(path) for path in weights(directory)]
    counts: dict[str, int] = {}
    for header in headers:
        for dtype, count in header.parameters_by_dtype.items():
            counts[dtype] = counts.get(dtype, 0) + count
    modules = _modules(directory / "modules.json")
    tokenizer = TokenizerFile(read_json(directory / "tokenizer.json", MAX_JSON_BYTES))
    tokenizer_config = read_json(directory / "tokenizer_config.json", MAX_JSON_BYTES) or {}
    return ModelFiles(
        config=config,
        shapes={name: shape for header in headers for name, shape in header.shapes.items()},
        parameters=sum(counts.values()),
        weights_bytes=sum(header.size for header in headers),
        dtype=max(counts, key=lambda dtype: counts[dtype], default=""),
        has_tokenizer=(directory / "tokenizer.json").is_file(),
        tokenizer_config=tokenizer_config,
        modules=modules,
        pooling=_module_config(directory, modules or (), "Pooling"),
        sentence_transformers=read_json(directory / "config_sentence_transformers.json") or {},
        max_sequence_length=_length(directory),
        words=tokenizer.ids(WORDS),
        score_tokens=_score_tokens(_module_config(directory, modules or (), "LogitScore"), tokenizer),
        chat_template=_text(directory / "chat_template.jinja")
        or str(tokenizer_config.get("chat_template", "")),
        card=_text(directory / "README.md"),
        names=_names(directory),
        python=frozenset(path.name for path in directory.glob("*.py")),
    )


def weights(directory: Path) -> list[Path]:
    """The safetensors files that make up the model, every one of them present.

    Raises:
        Failure: `FileMissing` where there are none, or an index names one that is absent.
    """
    index = read_json(directory / "model.safetensors.index.json", MAX_JSON_BYTES)
    if index is not None:
        weight_map = index.get("weight_map")
        names = sorted({str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else ())
        if any(name != PurePosixPath(name).name for name in names):
            raise Failure(
                Reason.FILE_MISSING, "model.safetensors.index.json points outside the model's directory."
            )
        absent = [name for name in names if not (directory / name).is_file()]
        if absent or not names:
            listed = ", ".join(absent[:3]) or "nothing"
            raise Failure(
                Reason.FILE_MISSING, f"model.safetensors.index.json names weights that are absent: {listed}."
            )
        return [directory / name for name in names]
    whole = directory / "model.safetensors"
    if not whole.is_file():
        if (directory / "adapter_config.json").is_file():
            raise _adapter(directory)
        raise Failure(
            Reason.FILE_MISSING,
            "There is no model.safetensors. Other formats (pytorch_model.bin, ONNX, GGUF) are not loaded: "
            "convert the model, or choose a revision that has safetensors.",
        )
    return [whole]


def _config(directory: Path) -> dict[str, Any]:
    config = read_json(directory / "config.json")
    if config is not None:
        return config
    if (directory / "adapter_config.json").is_file():
        raise _adapter(directory)
    quantised = sorted(path.name for path in directory.glob("*.gguf"))
    if quantised:
        raise Failure(
            Reason.FILE_MISSING,
            f"There is no config.json, only GGUF ({quantised[0]}), which is not served as it is: fetched "
            "with spec.model.huggingFace.file it is converted.",
        )
    raise Failure(
        Reason.FILE_MISSING, "There is no config.json: this is not a model in Hugging Face's layout."
    )


def _adapter(directory: Path) -> Failure:
    base = (read_json(directory / "adapter_config.json") or {}).get("base_model_name_or_path")
    of = f" of {base[:_LONGEST_NAME]}" if isinstance(base, str) else ""
    return Failure(
        Reason.FILE_MISSING,
        f"This is an adapter{of} and no whole model: merge it into its base model, and serve the result.",
    )


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any] | None:
    """A file's JSON object, or None where there is no such file.

    Raises:
        Failure: `FileMissing` where it is something else, or larger than the limit in bytes.
    """
    content = _parsed(path, limit)
    if content is not None and not isinstance(content, dict):
        raise Failure(Reason.FILE_MISSING, f"{path.name} is not a JSON object.")
    return content


def _parsed(path: Path, limit: int = MAX_CONFIG_BYTES) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (FileNotFoundError, IsADirectoryError):
        return None
    if len(content) > limit:
        raise Failure(Reason.FILE_MISSING, f"{path.name} is larger than {limit // 2**20} MiB.")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Failure(Reason.FILE_MISSING, f"{path.name} is not valid JSON.") from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _names(directory: Path) -> tuple[str, ...]:
    # Written by fetch, beside the model's directory.
    source = directory.parent / "source.json"
    repo = (read_json(source) or {}).get("repo") if source.is_file() else None
    return tuple(name for name in (repo, directory.name) if isinstance(name, str))


def _score_tokens(settings: dict[str, Any], tokenizer: TokenizerFile) -> tuple[str | None, ...] | None:
    if not settings:
        return None
    return tokenizer.word(settings.get("true_token_id")), tokenizer.word(settings.get("false_token_id"))


def _modules(path: Path) -> tuple[dict[str, Any], ...] | None:
    content = _parsed(path)
    if content is None:
        return None
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise Failure(Reason.FILE_MISSING, "modules.json is not a list of modules.")
    return tuple(content)


def _module_config(directory: Path, modules: tuple[dict[str, Any], ...], kind: str) -> dict[str, Any]:
    for module in modules:
        if str(module.get("type", "")).endswith(f".{kind}"):
            path = PurePosixPath(str(module.get("path", "")))
            # By name alone: in a hub's cache every file is a link to elsewhere.
            if path.is_absolute() or ".." in path.parts or "\0" in str(path):
                raise Failure(Reason.FILE_MISSING, "modules.json points outside the model's directory.")
            return read_json(directory / path / "config.json") or {}
    return {}


def _length(directory: Path) -> int | None:
    for name in LENGTH_FILES:
        content = read_json(directory / name)
        if content is not None:
            limit = content.get("max_seq_length")
            return int(limit) if isinstance(limit, int) and limit > 0 else None
    return None
