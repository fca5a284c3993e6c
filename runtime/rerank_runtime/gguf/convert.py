"""From a GGUF file to a folder that vLLM loads; called by fetch, after the file is downloaded and checked."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rerank_runtime import volume
from rerank_runtime.gguf import qwen3, reader, tokenizer, weights, xlm_roberta
from rerank_runtime.gguf.layout import Layout, refusal
from rerank_runtime.gguf.reader import GgufFile

log = logging.getLogger(__name__)

_LAYOUTS: dict[str, Callable[[GgufFile], Layout]] = {
    xlm_roberta.ARCHITECTURE: xlm_roberta.layout,
    qwen3.ARCHITECTURE: qwen3.layout,
}
# Keys of config.json that say how a score is made of the logit, which GGUF has no word for.
_ACTIVATION_KEYS = ("sentence_transformers", "sbert_ce_default_activation_function", "problem_type")
_BASE_FILES = ("config.json", "tokenizer.json", *tokenizer.COMPANIONS)
_CARD = "---\npipeline_tag: text-ranking\n---\n# {title}\n\nConverted from a GGUF file to safetensors.\n"
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def convert(gguf_path: Path, target_dir: Path, base_files: Mapping[str, Path] | None = None) -> None:
    """Write config.json, a model card, the tokenizer's files and model.safetensors.

    Args:
        gguf_path: The GGUF file, whole and outside of the target.
        target_dir: The folder; files of these names in it are replaced. model.safetensors comes last and at
            once.
        base_files: Files of the same repository by name, besides those that are in the folder already:
            tokenizer.json with its companions and config.json are used where they agree with the GGUF file.

    Raises:
        Failure: Where the file is damaged, no reranker, or cannot be converted exactly; `DiskFull` where its
            weights have no room.
        OSError: As the disk says.
    """
    base = {name: target_dir / name for name in _BASE_FILES if (target_dir / name).is_file()}
    base |= base_files or {}
    file = reader.read(gguf_path)
    layout = _layout(file)
    config = layout.config | _activation(base, layout.config) | {"dtype": _dtype(layout)}
    length = config["max_position_embeddings"]
    if config["model_type"] == "xlm-roberta":
        length -= config["pad_token_id"] + 1
    contents = tokenizer.files(file, base, length)
    contents["config.json"] = json.dumps(config, indent=2).encode()
    contents["README.md"] = _CARD.format(title=layout.title).encode()
    target_dir.mkdir(parents=True, exist_ok=True)
    # A folder converted before is replaced when the new one is whole: both have their place until then.
    volume.check_converted(target_dir, weights.size(layout.targets))
    for name in _BASE_FILES:
        # A file of the repository that this model is not made of would change how it is loaded.
        if name not in contents:
            (target_dir / name).unlink(missing_ok=True)
    for name, content in contents.items():
        (target_dir / name).write_bytes(content)
    weights.write(gguf_path, layout.targets, target_dir / "model.safetensors")
    log.info(
        "%s converted: %s tensors, %s", gguf_path.name, len(layout.targets), weights.elements(layout.targets)
    )


def _layout(file: GgufFile) -> Layout:
    architecture = file.metadata.text("general.architecture", "none")
    family = _LAYOUTS.get(architecture)
    if family is None:
        raise refusal(
            file,
            f"holds the architecture {architecture[:40]!r}; converted are {', '.join(sorted(_LAYOUTS))} "
            "(XLM-RoBERTa and Qwen3 rerankers)",
        )
    return family(file)


def _dtype(layout: Layout) -> str:
    counts = weights.elements(layout.targets)
    return _DTYPES[max(counts, key=lambda dtype: counts[dtype])]


def _activation(base: Mapping[str, Path], config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json of the same repository says about the score, if it is this model's."""
    if "config.json" not in base:
        return {}
    try:
        found = json.loads(base["config.json"].read_bytes())
    except ValueError:
        return {}
    if not isinstance(found, dict) or found.get("architectures") != config["architectures"]:
        return {}
    return {key: found[key] for key in _ACTIVATION_KEYS if key in found}
