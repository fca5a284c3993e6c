"""GGUF files of the tiny models, by the layout of llama.cpp's converter (conversion/bert.py,
conversion/qwen.py).

Written with the gguf package's writer: what is tested shares no code with what tests it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import sentencepiece
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from tests.rerank_runtime.gguf_models import Array, charsmap

Quantisation = Literal["F32", "F16", "BF16", "Q8_0", "Q4_K"]


def write_gguf(
    original: Path,
    path: Path,
    quantisation: Quantisation,
    *,
    change: Callable[[dict[str, Any], dict[str, Array]], None] | None = None,
) -> Path:
    """Write an original as one GGUF file.

    Args:
        original: A folder of `xlm_roberta` or `qwen3`.
        path: The file.
        quantisation: Of the matrices; vectors, norms and position embeddings stay F32, as the converter has
            them.
        change: Alters the metadata or the tensors, by llama.cpp's names, before they are written.
    """
    config = json.loads((original / "config.json").read_text())
    tensors = {
        name: array.astype(np.float32) for name, array in load_file(original / "model.safetensors").items()
    }
    if config["model_type"] == "xlm-roberta":
        architecture, pairs = "bert", _xlm_roberta_metadata(original, config)
        named = _xlm_roberta_tensors(config, tensors)
    else:
        architecture, pairs = "qwen3", _qwen3_metadata(original, config)
        named = _qwen3_tensors(original, config, tensors)
    if change is not None:
        change(pairs, named)
    writer = gguf.GGUFWriter(path, pairs.pop("general.architecture", architecture))
    for key, value in pairs.items():
        _add(writer, key, value)
    for name, array in named.items():
        kind = tensor_kind(name, array.shape, quantisation)
        writer.add_tensor(name, quantise(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensor_kind(name: str, shape: tuple[int, ...], quantisation: Quantisation) -> Kind:
    """The type that llama.cpp gives a tensor (conversion/base.py; llama-quantize for Q4_K)."""
    wanted = Kind[quantisation]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    if len(shape) == 1 or name.endswith(("_norm.weight", "position_embd.weight", "token_types.weight")):
        return Kind.F32
    # A single row counts as a vector there.
    if shape[-1] % block or (wanted is Kind.Q4_K and shape[0] == 1):
        return Kind.F16
    return wanted


def quantise(array: Array, kind: Kind) -> NDArray[Any]:
    """The bytes of a tensor in a type."""
    return q4_k(array) if kind is Kind.Q4_K else gguf.quants.quantize(array, kind)


def rounded(array: Array, kind: Kind) -> Array:
    """What is left of a tensor that was stored in a type: the same scheme, there and back."""
    raw = quantise(array, kind)
    return gguf.quants.dequantize(raw.view(np.uint8).reshape(*array.shape[:-1], -1), kind).reshape(
        array.shape
    )


def kept(array: Array, name: str, quantisation: Quantisation) -> Array:
    """What a converted folder has of an original's tensor: quantised ones are dequantised and rounded to 16
    bits.

    Args:
        array: The tensor.
        name: As llama.cpp calls it.
        quantisation: Of the file.
    """
    kind = tensor_kind(name, array.shape, quantisation)
    left = rounded(array, kind)
    return left if kind in {Kind.F32, Kind.F16, Kind.BF16} else left.astype(np.float16).astype(np.float32)


def as_quantised(original: Path, directory: Path, quantisation: Quantisation) -> Path:
    """An original with the weights that are left of it in a converted folder, in 32 bits.

    Its tensors are those of `original`; only their values are others.
    """
    shutil.copytree(original, directory)
    tensors = load_file(original / "model.safetensors")
    left = {name: kept(array, gguf_name(name), quantisation) for name, array in tensors.items()}
    save_file(left, directory / "model.safetensors")
    return directory


def gguf_name(name: str) -> str:
    """What llama.cpp calls a tensor of the originals."""
    stem, _, end = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{end}"
    index, _, part = stem.removeprefix("roberta.encoder.layer.").removeprefix("model.layers.").partition(".")
    return f"blk.{index}.{_IN_BLOCK[part]}.{end}"


def q4_k(array: Array) -> NDArray[np.uint8]:
    """Q4_K, which the package reads and does not write: 256 weights in eight groups of 32, each with a scale
    and a minimum of 6 bits, over 4 bits a weight. The search for better scales that llama.cpp does is left
    out.
    """
    groups = array.reshape(-1, 8, 32).astype(np.float32)
    low = np.maximum(-groups.min(axis=-1), 0)
    scale = (groups.max(axis=-1) + low) / 15
    d = (scale.max(axis=-1) / 63).astype(np.float16)
    dmin = (low.max(axis=-1) / 63).astype(np.float16)
    scales = np.rint(scale / np.maximum(d.astype(np.float32), 1e-12)[:, None]).clip(0, 63).astype(np.uint8)
    mins = np.rint(low / np.maximum(dmin.astype(np.float32), 1e-12)[:, None]).clip(0, 63).astype(np.uint8)
    step = d.astype(np.float32)[:, None] * scales
    shift = dmin.astype(np.float32)[:, None] * mins
    codes = (
        np.rint((groups + shift[..., None]) / np.where(step == 0, 1, step)[..., None])
        .clip(0, 15)
        .astype(np.uint8)
    )
    packed = np.empty((len(groups), 12), np.uint8)
    packed[:, 0:4] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    packed[:, 4:8] = mins[:, :4] | (mins[:, 4:] >> 4) << 6
    packed[:, 8:12] = (scales[:, 4:] & 15) | (mins[:, 4:] & 15) << 4
    nibbles = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(-1, 128)
    heads = np.stack([d, dmin], axis=1).view(np.uint8)
    return np.concatenate([heads, packed, nibbles], axis=1).reshape(*array.shape[:-1], -1)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def _xlm_roberta_metadata(original: Path, config: dict[str, Any]) -> dict[str, Any]:
    proto = (original / "sentencepiece.bpe.model").read_bytes()
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    size = max(config["vocab_size"], pieces.GetPieceSize())
    tokens = [f"[PAD{i}]" for i in range(size)]
    scores, types = [-10000.0] * size, [5] * size
    for i in range(pieces.GetPieceSize()):
        tokens[i], scores[i], types[i] = pieces.IdToPiece(i), pieces.GetScore(i), 1
    # The converter aligns SentencePiece's ids with fairseq's.
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *tokens[3:-1]]
    scores = [0.0] * 4 + scores[3:-1]
    types = [3, 3, 3, 2, *types[3:-1]]
    return {
        "general.name": "Tiny Reranker",
        "bert.block_count": config["num_hidden_layers"],
        "bert.context_length": config["max_position_embeddings"] - config["pad_token_id"] - 1,
        "bert.embedding_length": config["hidden_size"],
        "bert.feed_forward_length": config["intermediate_size"],
        "bert.attention.head_count": config["num_attention_heads"],
        "bert.attention.layer_norm_epsilon": config["layer_norm_eps"],
        "bert.attention.causal": False,
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.token_type_count": 1,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.precompiled_charsmap": charsmap(proto),
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.seperator_token_id": 2,
        "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.ggml.cls_token_id": 0,
        "tokenizer.ggml.mask_token_id": pieces.GetPieceSize() + 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }


_TOP = {
    "roberta.embeddings.word_embeddings": "token_embd",
    "roberta.embeddings.position_embeddings": "position_embd",
    "roberta.embeddings.token_type_embeddings": "token_types",
    "roberta.embeddings.LayerNorm": "token_embd_norm",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_IN_BLOCK = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _xlm_roberta_tensors(config: dict[str, Any], tensors: dict[str, Array]) -> dict[str, Array]:
    # Positions count on from the padding token's: the rows before are cut off.
    cut = config["pad_token_id"] + 1
    return {
        gguf_name(name): array[cut:] if "position_embeddings" in name else array
        for name, array in tensors.items()
    }


def _qwen3_metadata(original: Path, config: dict[str, Any]) -> dict[str, Any]:
    content = json.loads((original / "tokenizer.json").read_text())
    added = {entry["id"]: entry for entry in content["added_tokens"]}
    by_id = {index: token for token, index in content["model"]["vocab"].items()}
    tokens, types = [], []
    for index in range(config["vocab_size"]):
        if index in added:
            tokens.append(added[index]["content"])
            types.append(3 if added[index]["special"] else 4)
        else:
            tokens.append(by_id.get(index, f"[PAD{index}]"))
            types.append(1 if index in by_id else 5)
    return {
        "general.name": "Qwen3 Reranker Tiny",
        "general.base_model.count": 1,
        "general.base_model.0.repo_url": "https://huggingface.co/Qwen/Qwen3-0.6B-Base",
        "qwen3.block_count": config["num_hidden_layers"],
        "qwen3.context_length": config["max_position_embeddings"],
        "qwen3.embedding_length": config["hidden_size"],
        "qwen3.feed_forward_length": config["intermediate_size"],
        "qwen3.attention.head_count": config["num_attention_heads"],
        "qwen3.attention.head_count_kv": config["num_key_value_heads"],
        "qwen3.attention.key_length": config["head_dim"],
        "qwen3.attention.value_length": config["head_dim"],
        "qwen3.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "qwen3.rope.freq_base": config["rope_theta"],
        "qwen3.pooling_type": 4,
        "qwen3.classifier.output_labels": ["yes", "no"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in content["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.padding_token_id": config["pad_token_id"],
        "tokenizer.ggml.add_bos_token": False,
    }


def _qwen3_tensors(original: Path, config: dict[str, Any], tensors: dict[str, Array]) -> dict[str, Array]:
    tokenizer = Tokenizer.from_file(str(original / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()
    answers = [vocabulary["yes"], vocabulary["no"]]
    head = tensors["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    named = {gguf_name(name): array for name, array in tensors.items() if name != "lm_head.weight"}
    return named | {"cls.output.weight": head[answers]}
