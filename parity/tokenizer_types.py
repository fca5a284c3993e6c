"""Tokenizers of the types that rerankers have, trained on a few texts: the same normalisers, splits, special
tokens and post-processing as the real ones, with a small vocabulary.

Each function returns a `tokenizers.Tokenizer`; `save` writes it as a repository has it. What each type does
was read in the tokenizer.json of the models that the docstrings name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
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

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES = 256
QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_QWEN3_PLAIN = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)


def wordpiece(texts: Sequence[str]) -> Tokenizer:
    """BERT's (cross-encoder/ms-marco-MiniLM-L6-v2): lower case, no accents, word pieces."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=1200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(*(_pair(tokenizer, t) for t in ("[SEP]", "[CLS]")))
    return tokenizer


def unigram(texts: Sequence[str]) -> Tokenizer:
    """XLM-RoBERTa's (BAAI/bge-reranker-v2-m3): sentencepiece unigram with its NFKC rules; `<s>` … `<unk>`
    first, `<mask>` last, all of them pieces of the vocabulary too.
    """
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.Precompiled(_nfkc())
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trained.pre_tokenizer = split
    trainer = trainers.UnigramTrainer(
        vocab_size=900, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    pieces: list[tuple[str, float]] = [
        tuple(entry) for entry in json.loads(trained.to_str())["model"]["vocab"]
    ]
    known = [(piece, score) for piece, score in pieces if piece not in {*special, "<mask>"}]
    vocabulary = [(piece, 0.0) for piece in special] + known + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(_nfkc())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def roberta(texts: Sequence[str]) -> Tokenizer:
    """RoBERTa's (cross-encoder/stsb-roberta-base): byte-level BPE, `<s>` A `</s></s>` B `</s>`."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, texts, special)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def modernbert(texts: Sequence[str]) -> Tokenizer:
    """ModernBERT's (Alibaba-NLP/gte-reranker-modernbert-base): byte-level BPE after NFC, runs of spaces as
    added tokens that are not special, `[CLS]` A `[SEP]` B `[SEP]`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, texts, ["<|padding|>", "<|endoftext|>"])
    runs = [AddedToken(" " * count, normalized=True, special=False) for count in range(24, 1, -1)]
    tokenizer.add_tokens(["|||IP_ADDRESS|||", *runs, "|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||"])
    marks = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in marks])
    tokenizer.add_special_tokens([AddedToken("[MASK]", special=True, lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[_pair(tokenizer, t) for t in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def qwen(texts: Sequence[str], *, more_special: Sequence[str] = (), first_id: int = 0) -> Tokenizer:
    """Qwen2's and Qwen3's (Qwen/Qwen3-Reranker-0.6B): byte-level BPE after NFC with their split; `<think>`
    and `<tool_call>` are added tokens that are not special.

    Args:
        texts: To train on.
        more_special: Added after the family's own, as Jina's marks are.
        first_id: Id of `<|endoftext|>`, filled up to with unused pieces; 0 = right after the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _split(_QWEN_SPLIT)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, texts, [])
    if first_id:
        tokenizer = _filled(tokenizer, first_id)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in QWEN_SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in _QWEN3_PLAIN])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in more_special])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def llama3(texts: Sequence[str]) -> Tokenizer:
    """Llama 3's (nvidia/llama-nemotron-rerank-1b-v2): byte-level BPE with its split, `<|begin_of_text|>`
    before every text.
    """
    special = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = _split(_LLAMA_SPLIT)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, texts, [])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    begin = _pair(tokenizer, "<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                special_tokens=[begin],
            ),
        ]
    )
    return tokenizer


def gemma(texts: Sequence[str]) -> Tokenizer:
    """Gemma's (BAAI/bge-reranker-v2-gemma): BPE over characters with bytes to fall back on, `▁` for spaces,
    runs of newlines and spaces and HTML tags as added tokens that are not special, `<bos>` before every text.
    """
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    hexadecimal = [f"<0x{byte:02X}>" for byte in range(_BYTES)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=[*special, *hexadecimal], show_progress=False, max_token_length=12
    )
    tokenizer.train_from_iterator([t.replace("\n", "") for t in texts], trainer)
    # While training, the split keeps pieces inside words; the real one leaves merges to the model alone. The
    # bytes are pieces of the model and no added tokens.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    runs = ["\n" * count for count in range(1, 8)] + ["▁" * count for count in range(2, 8)]
    tags = ["<table>", "</table>", "<h1>", "</h1>", "<br>", "<strong>", "</strong>"]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in [*runs, *tags]])
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<start_of_turn>", "<end_of_turn>")]
    )
    begin = _pair(tokenizer, "<bos>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[begin]
    )
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path, tokenizer_class: str, **settings: Any) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Args:
        tokenizer: To save.
        directory: The model's.
        tokenizer_class: The class that the real repository names.
        settings: The rest of tokenizer_config.json.
    """
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": tokenizer_class, "clean_up_tokenization_spaces": False} | settings
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _pair(tokenizer: Tokenizer, token: str) -> tuple[str, int]:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no {token}")
    return token, number


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _train(tokenizer: Tokenizer, texts: Sequence[str], special: Sequence[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)


def _filled(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """The same with pieces that no text has, up to a vocabulary of this size."""
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"\u0000{number}": number for number in range(len(vocabulary), size)}
    return Tokenizer.from_str(json.dumps(content))


def _nfkc() -> bytes:
    """Sentencepiece's own table of its rule `nmt_nfkc`, which XLM-R's tokenizer carries."""
    written = bytearray()

    class Sink:
        write = staticmethod(written.extend)

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the table is part of every model, whatever it was trained on"] * 20),
        model_writer=Sink(),
        vocab_size=40,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(bytes(written))
    table: bytes = model.normalizer_spec.precompiled_charsmap
    return table
