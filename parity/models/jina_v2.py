"""Jina v2: an XLM-RoBERTa whose repository has names of its own for the weights, one tensor for the three
projections of its attention, and a configuration class that must be trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from parity import tokenizer_types
from parity.models.base import Family, randomised
from parity.models.encoders import SMALL, LongReference, marks

_LENGTH = 1024
_REMOTE = '''"""Configuration of the model, as its repository brings it."""

from transformers import PretrainedConfig


class XLMRobertaFlashConfig(PretrainedConfig):
    def __init__(self, use_flash_attn=True, emb_pooler=None, position_embedding_type="absolute", **kwargs):
        super().__init__(**kwargs)
        self.use_flash_attn = use_flash_attn
        self.emb_pooler = emb_pooler
        self.position_embedding_type = position_embedding_type
'''
_SIZES = SMALL | {
    "max_position_embeddings": _LENGTH + 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
# Names of transformers' class and of the repository's code (`XLMRobertaForSequenceClassification` in
# modeling_xlm_roberta.py of jinaai/jina-reranker-v2-base-multilingual), the longer ones first.
_NAMES = (
    ("embeddings.LayerNorm", "emb_ln"),
    ("encoder.layer.", "encoder.layers."),
    ("attention.self.qkv", "mixer.Wqkv"),
    ("attention.output.dense", "mixer.out_proj"),
    ("attention.output.LayerNorm", "norm1"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("output.LayerNorm", "norm2"),
)
_PARTS = ("query", "key", "value")


class JinaV2Reference(LongReference):
    """Card of jinaai/jina-reranker-v2-base-multilingual (`compute_score`, `max_length=1024`): the pair, one
    logit, its sigmoid; by transformers' XLM-RoBERTa, which the repository's code computes by other kernels.
    """

    def load(self, directory: Path) -> Any:
        weights = load_file(directory / "model.safetensors")
        vocabulary = weights["roberta.embeddings.word_embeddings.weight"].shape[0]
        model = XLMRobertaForSequenceClassification(_config(vocabulary))
        model.load_state_dict(_split(weights))
        return model

    def save(self) -> None:
        save_file(_joined(self.model.state_dict()), self.directory / "model.safetensors", {"format": "pt"})


def _config(vocabulary: int) -> XLMRobertaConfig:
    return XLMRobertaConfig(vocab_size=vocabulary, **_SIZES)


def _joined(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """From transformers' names to the repository's."""
    theirs: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        if re.search(r"\.self\.(key|value)\.", name):
            continue
        joined = tensor
        if ".self.query." in name:
            joined = torch.cat([ours[name.replace("query", part)] for part in _PARTS])
        target = name.replace("self.query", "self.qkv")
        for mine, its in _NAMES:
            target = target.replace(mine, its)
        theirs[target] = joined.contiguous()
    return theirs


def _split(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The way back."""
    ours: dict[str, torch.Tensor] = {}
    for name, tensor in theirs.items():
        target = name
        for mine, its in _NAMES:
            target = target.replace(its, mine)
        if ".qkv." not in target:
            ours[target] = tensor
            continue
        for part, piece in zip(_PARTS, tensor.chunk(3), strict=True):
            ours[target.replace("qkv", part)] = piece
    return ours


def _build(directory: Path, texts: Sequence[str]) -> None:
    tokenizer = tokenizer_types.unigram(texts)
    model = randomised(XLMRobertaForSequenceClassification(_config(tokenizer.get_vocab_size())))
    save_file(_joined(model.state_dict()), directory / "model.safetensors", {"format": "pt"})
    config = _SIZES | {
        "architectures": ["XLMRobertaForSequenceClassification"],
        "auto_map": {"AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig"},
        "hidden_act": "gelu",
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "use_flash_attn": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (directory / "configuration_xlm_roberta.py").write_text(_REMOTE, encoding="utf-8")
    tokenizer_types.save(tokenizer, directory, "XLMRobertaTokenizer", model_max_length=_LENGTH, **marks())


FAMILIES = (
    Family(
        "jina-v2",
        "jinaai/jina-reranker-v2-base-multilingual",
        _LENGTH,
        _build,
        JinaV2Reference,
        options=("--trust-remote-code",),
    ),
)
