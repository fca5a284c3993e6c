"""Tokenizers of the types of rerankers, trained on a few sentences: steps and special tokens of the
real ones, with a small vocabulary.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

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

SENTENCES = [
    "The giant panda, sometimes called a panda bear, lives in the mountains of China.",
    "What is a panda? It is a bear species endemic to China, and it eats bamboo.",
    "Paris is the capital and largest city of France; 2,102,650 people live there.",
    "def sort(items): return sorted(items)  # <b>bold</b> [1] [2] [see]",
    "大熊猫生活在中国的山区,以竹子为食。パンダは熊の一種です。",
    "الباندا العملاقة تعيش في جبال الصين. Der Panda ist ein Bär. ¿Qué es un panda? Ça va, naïve?",
    "Line one.\nLine two.\n\nLine three.\tTabbed   spaces 🐼🐼",
]
CORPUS = SENTENCES * 4
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_TEMPLATE = (
    "{{- '<|im_start|>system\\nJudge.<|im_end|>\\n<|im_start|>user\\n<Instruct>: Find.\\n<Query>: ' -}}"
    "{{- messages[0].content ~ '\\n<Document>: ' ~ messages[1].content -}}"
    "{{- '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' -}}"
)
KINDS = ("wordpiece", "unigram", "qwen")


@cache
def definition(kind: str) -> dict[str, Any]:
    """The content of tokenizer.json."""
    tokenizer: Tokenizer = {
        "roberta": _roberta,
        "wordpiece": _wordpiece,
        "unigram": _unigram,
        "qwen": _qwen,
        "gemma": _gemma,
    }[kind]()
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


@cache
def tokenizer(kind: str) -> Tokenizer:
    """The tokenizer itself, to compare with. Never to be changed."""
    return Tokenizer.from_str(json.dumps(definition(kind)))


def write(directory: Path, kind: str, config: dict[str, Any] | None = None) -> Path:
    """A model's directory as far as the intake reads it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(definition(kind)))
    (directory / "tokenizer_config.json").write_text(json.dumps(config or {}))
    return directory


def _wordpiece() -> Tokenizer:
    found = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    found.normalizer = normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    found.train_from_iterator(CORPUS, trainer)
    found.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # As MiniLM's file does: what training cut and padded to.
    found.enable_truncation(16)
    found.enable_padding(length=16)
    return found


def _unigram() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizer
    trained.pre_tokenizer = split
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    pieces = [tuple(entry) for entry in json.loads(trained.to_str())["model"]["vocab"]]
    known = [(piece, score) for piece, score in pieces if piece not in {*special, "<mask>"}]
    # XLM-R's special tokens are pieces of its vocabulary, and the likeliest ones.
    vocabulary = [(piece, 0.0) for piece in special] + known + [("<mask>", 0.0)]
    found = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    found.normalizer = normalizer
    found.pre_tokenizer = split
    found.decoder = decoders.Metaspace()
    found.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    found.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    found.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return found


def _roberta() -> Tokenizer:
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    found.train_from_iterator(CORPUS, trainer)
    found.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return found


def _qwen() -> Tokenizer:
    found = Tokenizer(models.BPE())
    found.normalizer = normalizers.NFC()
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    found.train_from_iterator(CORPUS, trainer)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|rerank_token|>", "<|embed_token|>"]
    found.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    plain = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<think>", "</think>"]
    found.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    found.post_processor = processors.ByteLevel(trim_offsets=False)
    return found


def _gemma() -> Tokenizer:
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    runs = ["\n\n", "▁▁", "<table>"]
    found = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    found.normalizer = normalizers.Replace(" ", "▁")
    found.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    hexadecimal = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*special, *hexadecimal, *runs],
        show_progress=False,
        max_token_length=8,
    )
    found.train_from_iterator(CORPUS, trainer)
    content = json.loads(found.to_str())
    content["added_tokens"] = [
        token | {"special": token["content"] in special}
        for token in content["added_tokens"]
        if token["content"] in [*special, *runs]
    ]
    found = Tokenizer.from_str(json.dumps(content))
    found.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)]
    )
    return found
