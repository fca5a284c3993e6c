"""GTE's own encoder as its repository has it: weights under the names of its code, rotary positions
stretched by NTK scaling, a configuration class that must be trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import GteConfig, GteForSequenceClassification

from parity import tokenizer_types
from parity.models.base import HEAD, HIDDEN, Family, randomised
from parity.models.encoders import LongReference, marks

_LENGTH = 1024
_THETA = 20_000.0
_FACTOR = 8.0
_REMOTE = '''"""Configuration of the model, as its repository brings it."""

from transformers import PretrainedConfig


class NewConfig(PretrainedConfig):
    model_type = "new"

    def __init__(
        self,
        hidden_act="gelu",
        position_embedding_type="rope",
        rope_theta=10000.0,
        rope_scaling=None,
        layer_norm_type="layer_norm",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_act = hidden_act
        self.position_embedding_type = position_embedding_type
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.layer_norm_type = layer_norm_type
'''
_SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 2 * HIDDEN,
    "max_position_embeddings": _LENGTH,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-12,
}
# Names of transformers' class (left) and of the repository's code.
_NAMES = (
    (r"^gte\.layers\.", "new.encoder.layer."),
    (r"^gte\.", "new."),
    ("self_attn", "attention"),
    ("post_attention_layernorm", "attn_ln"),
    ("post_mlp_layernorm", "mlp_ln"),
)


class GteNewReference(LongReference):
    """Card of Alibaba-NLP/gte-multilingual-reranker-base: the pair, one logit, its sigmoid; by the class that
    transformers has of it since, with the rotary frequencies of the repository's code
    (`NTKScalingRotaryEmbedding` without `mixed_b`).
    """

    def load(self, directory: Path) -> Any:
        weights = load_file(directory / "model.safetensors")
        vocabulary = weights["new.embeddings.word_embeddings.weight"].shape[0]
        model = GteForSequenceClassification(_config(vocabulary))
        model.load_state_dict(_split(weights))
        steps = torch.arange(0, HEAD, 2) / HEAD
        model.gte.rotary_emb.inv_freq = (_THETA * _FACTOR) ** -steps / _FACTOR ** (2 / HEAD)
        return model

    def save(self) -> None:
        save_file(_joined(self.model.state_dict()), self.directory / "model.safetensors", {"format": "pt"})


def _config(vocabulary: int) -> GteConfig:
    config = GteConfig(vocab_size=vocabulary, num_labels=1, attn_implementation="eager", **_SIZES)
    # Written down by the class for its own form of the positions, which are set by hand.
    config.rope_parameters = {"rope_type": "default", "rope_theta": _THETA * _FACTOR}
    return config


def _joined(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """From transformers' names and three projections to the repository's and one."""
    theirs: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        if re.search(r"\.(k|v|gate)_proj\.", name):
            continue
        joined = tensor
        if ".q_proj." in name:
            joined = torch.cat([ours[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        elif ".up_proj." in name:
            joined = torch.cat([tensor, ours[name.replace("up_proj", "gate_proj")]])
        target = name.replace("q_proj", "qkv_proj").replace("up_proj", "up_gate_proj")
        for pattern, replacement in _NAMES:
            target = re.sub(pattern, replacement, target)
        theirs[target] = joined.contiguous()
    return theirs


def _split(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The way back."""
    ours: dict[str, torch.Tensor] = {}
    for name, tensor in theirs.items():
        target = name
        for pattern, replacement in (
            (r"^new\.encoder\.layer\.", "gte.layers."),
            (r"^new\.", "gte."),
            ("attention", "self_attn"),
            ("attn_ln", "post_attention_layernorm"),
            ("mlp_ln", "post_mlp_layernorm"),
        ):
            target = re.sub(pattern, replacement, target)
        parts = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "up_gate_proj": ("up_proj", "gate_proj")}
        joined = next((part for part in parts if f".{part}." in target), None)
        if joined is None:
            ours[target] = tensor
            continue
        for part, piece in zip(parts[joined], tensor.chunk(len(parts[joined])), strict=True):
            ours[target.replace(joined, part)] = piece
    return ours


def _build(directory: Path, texts: Sequence[str]) -> None:
    tokenizer = tokenizer_types.unigram(texts)
    model = randomised(GteForSequenceClassification(_config(tokenizer.get_vocab_size())))
    save_file(_joined(model.state_dict()), directory / "model.safetensors", {"format": "pt"})
    config = _SIZES | {
        "architectures": ["NewForSequenceClassification"],
        "auto_map": {"AutoConfig": "configuration.NewConfig"},
        "model_type": "new",
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "hidden_act": "gelu",
        "position_embedding_type": "rope",
        "rope_theta": _THETA,
        "rope_scaling": {"type": "ntk", "factor": _FACTOR},
        "vocab_size": tokenizer.get_vocab_size(),
        "pad_token_id": 1,
        "torch_dtype": "float32",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (directory / "configuration.py").write_text(_REMOTE, encoding="utf-8")
    tokenizer_types.save(tokenizer, directory, "XLMRobertaTokenizer", model_max_length=_LENGTH, **marks())


FAMILIES = (
    Family(
        "gte-new",
        "Alibaba-NLP/gte-multilingual-reranker-base",
        _LENGTH,
        _build,
        GteNewReference,
        options=("--trust-remote-code",),
        note="with its code beside its weights; as it is published, with its code in a second repository, "
        "it is not served (docs/models.md)",
    ),
)
