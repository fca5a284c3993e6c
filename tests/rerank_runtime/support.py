"""Model directories and plans that the tests of the runtime share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Method
from rerank_runtime.serve_plan import ServePlan

BERT: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_size": 384,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "id2label": {"0": "LABEL_0"},
}
XLM_R: dict[str, Any] = BERT | {
    "architectures": ["XLMRobertaForSequenceClassification"],
    "model_type": "xlm-roberta",
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "max_position_embeddings": 8194,
    "pad_token_id": 1,
}
MODULES = tuple(
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (path, kind) in enumerate(
        (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    )
)
MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}


def cross_encoder(config: dict[str, Any] | None = None, **changes: Any) -> ModelFiles:
    """What the directory of a good cross-encoder says, with changes."""
    config = BERT | (config or {})
    head = "classifier.weight" if config["model_type"] == "bert" else "classifier.out_proj.weight"
    values: dict[str, Any] = {
        "config": config,
        "shapes": {head: (1, config["hidden_size"])},
        "parameters": 22_000_000,
        "weights_bytes": 88_000_000,
        "dtype": "F32",
        "has_tokenizer": True,
    }
    return ModelFiles(**(values | changes))


def embedding(config: dict[str, Any] | None = None, **changes: Any) -> ModelFiles:
    """What the directory of a good embedding model says, with changes."""
    values: dict[str, Any] = {"shapes": {}, "modules": MODULES, "pooling": MEAN}
    return cross_encoder({"architectures": ["BertModel"]} | (config or {}), **(values | changes))


def serve_plan(method: Method = Method.CROSS_ENCODER, **changes: Any) -> ServePlan:
    """A plan to judge by."""
    values: dict[str, Any] = {
        "family": "bert",
        "architecture": "BertForSequenceClassification",
        "method": method,
        "score_range": "[0,1]",
        "convert": "classify",
        "hf_overrides": {},
        "dtype": "float32",
        "context_length": 512,
        "parameters": 1,
        "weights_bytes": 4,
    }
    return ServePlan(**(values | changes))


def write_model(directory: Path, config: dict[str, Any] | None = None) -> Path:
    """A model's directory on disk, with weights of a few bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(BERT | (config or {})))
    (directory / "tokenizer.json").write_text("{}")
    tensors: dict[str, Any] = {
        "classifier.weight": np.zeros((1, 384), np.float32),
        "bert.x": np.zeros((2, 3), np.float16),
    }
    save_file(tensors, directory / "model.safetensors")
    return directory
