"""A tiny reranker whose head lies in folders beside its weights, as sentence-transformers saves one.

The files are those that CrossEncoder.save_pretrained of sentence-transformers 6.2.0 wrote for the chain of
the Ettin rerankers' cards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Arrays = dict[str, NDArray[Any]]

WIDTH = 32
WEIGHTS = "model.safetensors"
_MODULES = "sentence_transformers.base.modules"
_OTHERS = "sentence_transformers.sentence_transformer.modules"
_TYPES = (
    ("", f"{_MODULES}.transformer.Transformer"),
    ("1_Pooling", f"{_OTHERS}.pooling.Pooling"),
    ("2_Dense", f"{_MODULES}.dense.Dense"),
    ("3_LayerNorm", f"{_OTHERS}.layer_norm.LayerNorm"),
    ("4_Dense", f"{_MODULES}.dense.Dense"),
)


def config(width: int = WIDTH) -> dict[str, Any]:
    """config.json, as far as anything reads it."""
    return {
        "architectures": ["ModernBertModel"],
        "classifier_pooling": "mean",
        "hidden_size": width,
        "max_position_embeddings": 7999,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-05,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
    }


def settings(width: int = WIDTH) -> dict[str, Any]:
    """All files of sentence-transformers but the weights, by name."""
    dense = {"in_features": width, "module_input_name": "sentence_embedding"}
    return {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(_TYPES)
        ],
        "1_Pooling/config.json": {
            "embedding_dimension": width,
            "pooling_mode": "cls",
            "include_prompt": True,
        },
        "2_Dense/config.json": dense
        | {
            "out_features": width,
            "bias": False,
            "activation_function": "torch.nn.modules.activation.GELU",
            "module_output_name": "sentence_embedding",
        },
        "3_LayerNorm/config.json": {"dimension": width},
        "4_Dense/config.json": dense
        | {
            "out_features": 1,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
            "module_output_name": "scores",
        },
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "6.2.0"},
            "activation_fn": "torch.nn.modules.linear.Identity",
            "default_prompt_name": None,
            "model_type": "CrossEncoder",
            "prompts": {},
        },
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
    }


def weights(seed: int = 0) -> dict[str, Arrays]:
    """Tensors of each weights file."""
    random = np.random.default_rng(seed)

    def some(*shape: int) -> NDArray[Any]:
        return random.standard_normal(shape).astype(np.float32)

    return {
        WEIGHTS: {
            "embeddings.tok_embeddings.weight": some(40, WIDTH),
            "layers.0.attn.Wo.weight": some(WIDTH, WIDTH),
            "final_norm.weight": some(WIDTH),
        },
        f"2_Dense/{WEIGHTS}": {"linear.weight": some(WIDTH, WIDTH)},
        f"3_LayerNorm/{WEIGHTS}": {"norm.weight": some(WIDTH), "norm.bias": some(WIDTH)},
        f"4_Dense/{WEIGHTS}": {"linear.weight": some(1, WIDTH), "linear.bias": some(1)},
    }


def write(directory: Path, tensors: dict[str, Arrays] | None = None) -> Path:
    """The model as it is published."""
    jsons = settings() | {"config.json": config(), "tokenizer.json": {"model": {"vocab": {}}}}
    for name, content in jsons.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    (directory / "README.md").write_text("Ranks nothing.\n", encoding="utf-8")
    for name, arrays in (tensors or weights()).items():
        save_file(arrays, directory / name, metadata={"format": "pt"})
    return directory
