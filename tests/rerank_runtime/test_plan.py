"""The serving plan, by table: state in, decision or refusal out."""

from __future__ import annotations

from typing import Any

import pytest

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Device, Method, Options
from rerank_runtime.plan import plan
from tests.rerank_runtime.support import BERT, MODULES, XLM_R, cross_encoder, embedding

ROBERTA_SHORT = XLM_R | {
    "architectures": ["RobertaForSequenceClassification"],
    "model_type": "roberta",
    "max_position_embeddings": 514,
}
NO_PROMPTS = {"prompts": {"query": "", "document": ""}}
GENERATOR = {"architectures": ["GPT2LMHeadModel"]}
COSINE = Options(Method.COSINE)
IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
SOFTPLUS = "torch.nn.modules.activation.Softplus"


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        (
            cross_encoder(),
            Options(),
            {"family": "bert", "method": "CrossEncoder", "convert": "classify", "score_range": "[0,1]"},
        ),
        (cross_encoder(), Options(Method.CROSS_ENCODER), {"method": "CrossEncoder", "dtype": "float32"}),
        (cross_encoder(XLM_R), Options(), {"family": "xlm-roberta", "context_length": 8192}),
        (cross_encoder(XLM_R | {"max_position_embeddings": 514}), Options(), {"context_length": 512}),
        (cross_encoder(ROBERTA_SHORT), Options(), {"family": "roberta", "context_length": 512}),
        (
            embedding(max_sequence_length=256, tokenizer_config={"model_max_length": 512}),
            COSINE,
            {"method": "Cosine", "convert": "embed", "score_range": "[-1,1]", "context_length": 256},
        ),
        (embedding(modules=MODULES[:2]), COSINE, {"method": "Cosine"}),
        (embedding(pooling={"pooling_mode": "cls"}), COSINE, {"method": "Cosine"}),
        (embedding(sentence_transformers=NO_PROMPTS), COSINE, {"method": "Cosine"}),
        (embedding(sentence_transformers={"similarity_fn_name": "dot"}), COSINE, {"method": "Cosine"}),
    ],
)
def test_plans(files: ModelFiles, options: Options, expected: dict[str, Any]) -> None:
    decided = plan(files, options).as_json()
    assert {key: decided[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BERT, {}),
        (XLM_R, {"position_embedding_type": "absolute"}),
        (ROBERTA_SHORT, {"position_embedding_type": "absolute"}),
        (XLM_R | {"position_embedding_type": "absolute"}, {}),
    ],
)
def test_what_transformers_5_no_longer_saves_is_told(
    config: dict[str, Any], expected: dict[str, str]
) -> None:
    assert plan(cross_encoder(config), Options()).hf_overrides == expected


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ({}, 512),
        ({"model_max_length": 384}, 384),
        ({"model_max_length": int(1e30)}, 512),
        ({"model_max_length": 4096}, 512),
    ],
)
def test_tokenizer_limits_the_length(tokenizer: dict[str, Any], expected: int) -> None:
    assert plan(cross_encoder(tokenizer_config=tokenizer), Options()).context_length == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "[0,1]"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, "logits"),
        ({"sentence_transformers": {"activation_fn": SIGMOID}}, "[0,1]"),
        (
            {"sentence_transformers": {"version": "5"}, "sbert_ce_default_activation_function": IDENTITY},
            "logits",
        ),
        ({"sbert_ce_default_activation_function": None}, "[0,1]"),
        ({"problem_type": "regression", "sentence_transformers": {"activation_fn": SIGMOID}}, "logits"),
        ({"problem_type": "single_label_classification"}, "[0,1]"),
    ],
)
def test_range_follows_the_activation(config: dict[str, Any], expected: str) -> None:
    assert plan(cross_encoder(config), Options()).score_range == expected


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("F32", Device.CPU, "float32"),
        ("BF16", Device.CPU, "float32"),
        ("F32", Device.CUDA, "float16"),
        ("F16", Device.CUDA, "float16"),
        ("BF16", Device.CUDA, "bfloat16"),
    ],
)
def test_precision(dtype: str, device: Device, expected: str) -> None:
    assert plan(cross_encoder(dtype=dtype), Options(device=device)).dtype == expected


def _without(key: str) -> dict[str, Any]:
    return {k: v for k, v in BERT.items() if k != key}


@pytest.mark.parametrize(
    ("files", "options", "reason", "says"),
    [
        (embedding(), Options(), Reason.NOT_A_RERANKER, "set scoring.method: Cosine"),
        (embedding(), Options(Method.CROSS_ENCODER), Reason.NOT_A_RERANKER, "scoring.method is CrossEncoder"),
        (cross_encoder(), COSINE, Reason.NOT_A_RERANKER, "is a cross-encoder"),
        (cross_encoder({"id2label": {"0": "no", "1": "yes"}}), Options(), Reason.NOT_A_RERANKER, "2 labels"),
        (cross_encoder({"id2label": None, "num_labels": 3}), Options(), Reason.NOT_A_RERANKER, "3 labels"),
        (cross_encoder({"id2label": None}), Options(), Reason.NOT_A_RERANKER, "2 labels"),
        (cross_encoder(shapes={}), Options(), Reason.NOT_A_RERANKER, "are not there"),
        (cross_encoder(shapes={"classifier.weight": (2, 384)}), Options(), Reason.NOT_A_RERANKER, "[2, 384]"),
        (cross_encoder(GENERATOR), Options(), Reason.NOT_A_RERANKER, "GPT2LMHeadModel"),
        (cross_encoder({"architectures": []}), Options(), Reason.NOT_A_RERANKER, "names no architecture"),
        (
            cross_encoder({"architectures": ["DebertaV2ForSequenceClassification"]}),
            Options(),
            Reason.UNSUPPORTED_ARCHITECTURE,
            "DebertaV2ForSequenceClassification is not served yet. Supported are BertForSequence",
        ),
        (cross_encoder({"auto_map": {"A": "x.Y"}}), Options(), Reason.UNSUPPORTED_ARCHITECTURE, "auto_map"),
        (
            cross_encoder({"position_embedding_type": "relative_key"}),
            Options(),
            Reason.UNSUPPORTED_ARCHITECTURE,
            "relative_key",
        ),
        (
            cross_encoder({"sentence_transformers": {"activation_fn": SOFTPLUS}}),
            Options(),
            Reason.UNSUPPORTED_ARCHITECTURE,
            "Softplus",
        ),
        (cross_encoder(has_tokenizer=False), Options(), Reason.FILE_MISSING, "tokenizer.json"),
        (cross_encoder({"max_position_embeddings": "x"}), Options(), Reason.FILE_MISSING, "max_position_emb"),
        (cross_encoder({"hidden_size": 312}), Options(), Reason.UNSUPPORTED_ARCHITECTURE, "here it is 26"),
        (embedding(modules=None), COSINE, Reason.NOT_A_RERANKER, "modules.json"),
        (
            embedding(modules=(*MODULES, {"type": "sentence_transformers.models.Dense"})),
            COSINE,
            Reason.UNSUPPORTED_ARCHITECTURE,
            "Dense",
        ),
        (
            embedding(pooling={"pooling_mode_max_tokens": True}),
            COSINE,
            Reason.UNSUPPORTED_ARCHITECTURE,
            "by max_",
        ),
        (embedding(pooling={}), COSINE, Reason.UNSUPPORTED_ARCHITECTURE, "nothing known"),
        (
            embedding(pooling={"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}),
            COSINE,
            Reason.UNSUPPORTED_ARCHITECTURE,
            "cls and mean",
        ),
        (
            embedding(sentence_transformers={"prompts": {"query": "query: "}}),
            COSINE,
            Reason.UNSUPPORTED_ARCHITECTURE,
            "prompts (query)",
        ),
        (
            embedding(sentence_transformers={"similarity_fn_name": "euclidean"}),
            COSINE,
            Reason.NOT_A_RERANKER,
            "euclidean",
        ),
        (
            cross_encoder(parameters=568_000_000),
            Options(memory_limit=4 * 2**30),
            Reason.ENGINE_OUT_OF_MEMORY,
            "set resources.memory: 5Gi",
        ),
    ],
)
def test_refuses(files: ModelFiles, options: Options, reason: Reason, says: str) -> None:
    with pytest.raises(Failure) as refusal:
        plan(files, options)
    assert refusal.value.reason == reason
    assert says in refusal.value.message
    assert not refusal.value.retriable


def test_a_gpu_takes_heads_of_any_size() -> None:
    assert plan(cross_encoder({"hidden_size": 312}), Options(device=Device.CUDA)).family == "bert"


def test_memory_that_is_enough_is_enough() -> None:
    assert plan(cross_encoder(), Options(memory_limit=4 * 2**30)).family == "bert"
