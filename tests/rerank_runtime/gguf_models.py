"""Tiny rerankers in Hugging Face's layout, with tokenizers made by the libraries that make real ones.

Seeds are fixed; `gguf_layout` writes the same models as GGUF files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

Array = NDArray[np.float32]

# Enough of several scripts for a vocabulary of a few hundred pieces.
CORPUS = [
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear, is a bear species of China.",
    "What is a panda? It's an animal that eats bamboo; hi, how are you?",
    "Berlin is the capital of Germany, and its population was 3,755,251 in 2022.",
    "Ein Satz auf Deutsch: Die Hauptstadt von Frankreich ist Paris, nicht Straßburg.",
    "大熊猫是中国特有的熊科动物,主要吃竹子。人口约为一千八百六十四只。",
    "東京は日本の首都であり、パンダは上野動物園にいます。",
    "Большая панда питается бамбуком и живёт в горах Китая.",
    "الباندا العملاقة تعيش في الصين وتأكل الخيزران.",
    "def rank(query, documents):\n    return sorted(documents, key=lambda d: -score(query, d))",
    "To score yes or no: yes, no, yes, no. The answer is yes; the answer is no.",
] * 4


def xlm_roberta(
    directory: Path,
    texts: Sequence[str] = CORPUS,
    *,
    seed: int = 0,
    width: int = 256,
    blocks: int = 2,
    length: int = 256,
    small: bool = False,
) -> Path:
    """A tiny XLMRobertaForSequenceClassification with random weights and a SentencePiece tokenizer.

    Args:
        directory: Where it is written; made if absent. sentencepiece.bpe.model, which the converter reads,
            too.
        texts: What the tokenizer is trained on.
        seed: Of the weights.
        width: Hidden size, in heads of 64.
        blocks: Number of layers.
        length: Longest sequence in tokens.
        small: With a table of a few characters to normalise, instead of all of Unicode's (240 KB, which
            the gguf package writes in half a second).
    """
    directory.mkdir(parents=True, exist_ok=True)
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=trained,
        vocab_size=900,
        hard_vocab_limit=False,
        model_type="unigram",
        minloglevel=2,
        normalization_rule_tsv=str(_few_rules(directory)) if small else "",
    )
    proto = trained.getvalue()
    (directory / "sentencepiece.bpe.model").write_bytes(proto)
    tokenizer = _xlm_roberta_tokenizer(proto)
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {
        "bos": "<s>",
        "eos": "</s>",
        "unk": "<unk>",
        "sep": "</s>",
        "pad": "<pad>",
        "cls": "<s>",
        "mask": "<mask>",
    }
    _write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
        | {f"{role}_token": token for role, token in special.items()},
    )
    config: dict[str, Any] = {
        "architectures": ["XLMRobertaForSequenceClassification"],
        "model_type": "xlm-roberta",
        # More embeddings than tokens, as some originals have.
        "vocab_size": tokenizer.get_vocab_size() + 2,
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": width // 64,
        "intermediate_size": 2 * width,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "position_embedding_type": "absolute",
        "max_position_embeddings": length + 2,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    _write_json(directory / "config.json", config)
    random = np.random.default_rng(seed)
    shapes = dict(_xlm_roberta_shapes(config))
    save_file(
        {name: _weights(random, name, shape) for name, shape in shapes.items()},
        directory / "model.safetensors",
    )
    return directory


def _few_rules(directory: Path) -> Path:
    rules = {"\t": " ", "\n": " ", "\u3000": " ", "ﬁ": "fi", "Ｗ": "W"}
    path = directory / "rules.tsv"
    path.write_text(
        "".join(f"{ord(key):X}\t{' '.join(f'{ord(c):X}' for c in value)}\n" for key, value in rules.items())
    )
    return path


def qwen3(
    directory: Path,
    texts: Sequence[str] = CORPUS,
    *,
    seed: int = 0,
    width: int = 256,
    blocks: int = 2,
    tied: bool = True,
) -> Path:
    """A tiny Qwen3ForCausalLM with random weights and a byte-level BPE: Qwen3-Reranker as published."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _qwen3_tokenizer(texts)
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
    )
    config: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        # More embeddings than tokens, as the original has.
        "vocab_size": tokenizer.get_vocab_size() + 5,
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": width // 64,
        "num_key_value_heads": max(1, width // 128),
        "head_dim": 128,
        "intermediate_size": 2 * width,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 1024,
        "attention_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
    }
    _write_json(directory / "config.json", config)
    random = np.random.default_rng(seed)
    shapes = dict(_qwen3_shapes(config))
    save_file(
        {name: _weights(random, name, shape) for name, shape in shapes.items()},
        directory / "model.safetensors",
    )
    return directory


def _weights(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    if "LayerNorm.weight" in name or "norm.weight" in name:
        return (1 + 0.1 * random.standard_normal(shape)).astype(np.float32)
    spread = 0.1 if len(shape) == 1 else 1.5 / np.sqrt(shape[-1])
    return (spread * random.standard_normal(shape)).astype(np.float32)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Fields of a protocol buffer: numbers, and bytes for what has a length."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
            continue
        length = varint() if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
        yield tag >> 3, message[at : at + length]
        at += length


def charsmap(proto: bytes) -> bytes:
    # ModelProto.normalizer_spec.precompiled_charsmap
    normalizer = next(value for number, value in _fields(proto) if number == 3)
    return bytes(next(value for number, value in _fields(normalizer) if number == 2))


def _xlm_roberta_tokenizer(proto: bytes) -> Tokenizer:
    """As transformers makes it (XLMRobertaTokenizer)."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    vocab = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    vocab += [(pieces.IdToPiece(i), float(pieces.GetScore(i))) for i in range(3, pieces.GetPieceSize())]
    vocab.append(("<mask>", 0.0))
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(charsmap(proto))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ("<s>", "<pad>", "</s>", "<unk>")])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _xlm_roberta_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield "roberta.embeddings.word_embeddings.weight", (config["vocab_size"], width)
    yield "roberta.embeddings.position_embeddings.weight", (config["max_position_embeddings"], width)
    yield "roberta.embeddings.token_type_embeddings.weight", (1, width)
    linear = {"attention.output.dense": (width, width), "intermediate.dense": (inner, width)}
    linear |= {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
    linear["output.dense"] = (width, inner)
    names = {"classifier.dense": (width, width), "classifier.out_proj": (1, width)}
    norms = ["roberta.embeddings.LayerNorm"]
    for index in range(config["num_hidden_layers"]):
        layer = f"roberta.encoder.layer.{index}"
        names |= {f"{layer}.{name}": shape for name, shape in linear.items()}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name, shape in names.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]
    for name in norms:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)


_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _qwen3_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """As that of Qwen3: control tokens, and two tokens for thinking that are none."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    # "yes" and "no" must be tokens of their own, as in every real vocabulary.
    tokenizer.train_from_iterator([*texts, *(["yes", "no"] * 200)], trainer)
    controls = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in controls])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    return tokenizer


def _qwen3_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    yield "model.embed_tokens.weight", (config["vocab_size"], width)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], width)
    yield "model.norm.weight", (width,)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        yield f"{layer}.input_layernorm.weight", (width,)
        yield f"{layer}.post_attention_layernorm.weight", (width,)
        yield f"{layer}.self_attn.q_proj.weight", (queries, width)
        yield f"{layer}.self_attn.k_proj.weight", (keys, width)
        yield f"{layer}.self_attn.v_proj.weight", (keys, width)
        yield f"{layer}.self_attn.o_proj.weight", (width, queries)
        yield f"{layer}.self_attn.q_norm.weight", (size,)
        yield f"{layer}.self_attn.k_norm.weight", (size,)
        yield f"{layer}.mlp.gate_proj.weight", (inner, width)
        yield f"{layer}.mlp.up_proj.weight", (inner, width)
        yield f"{layer}.mlp.down_proj.weight", (width, inner)
