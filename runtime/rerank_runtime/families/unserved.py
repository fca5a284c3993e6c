"""Architectures of rerankers that people try and that are not served: why, and what to use instead."""

from __future__ import annotations

_TEXTS = "For texts use Qwen/Qwen3-Reranker-0.6B, 4B or 8B, or BAAI/bge-reranker-v2-m3, all in the catalog."
_PICTURES = "It reads pictures as well as texts, by a prompt of its own that is not reproduced here"
_NO_CLASS = "vLLM has no class for it"

WHY = {
    "JinaVLForRanking": (
        f"{_PICTURES} (jina-reranker-m0). For texts use jinaai/jina-reranker-v3, which may not be used "
        "commercially either, or BAAI/bge-reranker-v2-m3, which may; both are in the catalog."
    ),
    "Qwen3VLForConditionalGeneration": f"{_PICTURES} (Qwen3-VL-Reranker). {_TEXTS}",
    "Qwen3VLForSequenceClassification": f"{_PICTURES} (Qwen3-VL-Reranker). {_TEXTS}",
    "Qwen2VLForConditionalGeneration": f"{_PICTURES} (MonoQwen2-VL). {_TEXTS}",
    "LlamaNemotronVLForSequenceClassification": (
        f"{_PICTURES}. For texts use nvidia/llama-nemotron-rerank-1b-v2, which is in the catalog."
    ),
    "DebertaV2ForSequenceClassification": (
        f"{_NO_CLASS}. Use the second version, mixedbread-ai/mxbai-rerank-base-v2 or large-v2, or for "
        "English Alibaba-NLP/gte-reranker-modernbert-base, all in the catalog."
    ),
    "ElectraForSequenceClassification": (
        f"{_NO_CLASS}. Use cross-encoder/ms-marco-MiniLM-L6-v2, or Alibaba-NLP/gte-reranker-modernbert-base "
        "for longer texts, both in the catalog."
    ),
    "JinaBertModel": (
        "vLLM has no class for its rerankers (jina-reranker-v1). Use "
        "jinaai/jina-reranker-v2-base-multilingual, or for English Alibaba-NLP/gte-reranker-modernbert-base, "
        "both in the catalog."
    ),
    "LayerWiseMiniCPMForCausalLM": (
        f"{_NO_CLASS} (bge-reranker-v2-minicpm-layerwise). Use BAAI/bge-reranker-v2-gemma or "
        "BAAI/bge-reranker-v2-m3, both in the catalog."
    ),
    "CostWiseGemmaForCausalLM": (
        f"{_NO_CLASS} (bge-reranker-v2.5-gemma2-lightweight). Use BAAI/bge-reranker-v2-gemma or "
        "BAAI/bge-reranker-v2-m3, both in the catalog."
    ),
}
