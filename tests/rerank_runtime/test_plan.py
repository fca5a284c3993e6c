"""The serving plan, by table: state in, decision or refusal out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Device, Method, OnOverflow, Options
from rerank_runtime.plan import plan
from rerank_runtime.serve_plan import Truncation
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
            cross_encoder({"architectures": ["MambaForSequenceClassification"]}),
            Options(),
            Reason.UNSUPPORTED_ARCHITECTURE,
            "MambaForSequenceClassification is not served. Supported are BertForSequence",
        ),
        (
            cross_encoder({"architectures": ["DebertaV2ForSequenceClassification"]}),
            Options(),
            Reason.UNSUPPORTED_ARCHITECTURE,
            "Use the second version, mixedbread-ai/mxbai-rerank-base-v2",
        ),
        (
            cross_encoder({"architectures": ["Qwen3VLForConditionalGeneration"]}),
            Options(),
            Reason.NOT_A_RERANKER,
            "gives no relevance score",
        ),
        (
            cross_encoder(
                {"architectures": ["Qwen3VLForConditionalGeneration"]}, names=("me/Qwen3-VL-Reranker-2B",)
            ),
            Options(),
            Reason.UNSUPPORTED_ARCHITECTURE,
            "reads pictures",
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


QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "head_dim": 128,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_hidden_layers": 28,
    "max_position_embeddings": 40960,
    "vocab_size": 151936,
}
WORDS = {
    word: number
    for number, word in enumerate(("yes", "no", "<|im_start|>", "<|im_end|>", "<think>", "</think>"))
}
SENTENCE = "Judge whether the Document meets the requirements based on the Query and the Instruct provided."
ORIGINAL = {
    "architectures": ["Qwen3ForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}


TURING = Options(device=Device.CUDA, gpu_capability=(7, 5))


@pytest.mark.parametrize(
    ("dtype", "options", "expected"),
    [
        ("BF16", replace(TURING, gpu_capability=None), "bfloat16"),
        ("BF16", replace(TURING, gpu_capability=(8, 0)), "bfloat16"),
        ("BF16", TURING, "float16"),
        ("F32", TURING, "float16"),
        ("F16", TURING, "float16"),
        ("BF16", replace(TURING, dtype="float32"), "float32"),
        ("BF16", replace(TURING, device=Device.CPU), "float32"),
        ("BF16", replace(TURING, device=Device.CPU, dtype="bfloat16"), "bfloat16"),
    ],
)
def test_bfloat16_is_chosen_only_where_the_gpu_has_it(dtype: str, options: Options, expected: str) -> None:
    assert plan(qwen3(dtype=dtype), options).dtype == expected


def test_bfloat16_that_the_gpu_lacks_is_refused_where_it_is_asked_for() -> None:
    with pytest.raises(Failure, match=r"compute capability 7\.5\) does not") as refusal:
        plan(qwen3(), replace(TURING, dtype="bfloat16"))
    assert refusal.value.reason == Reason.INVALID_OPTIONS


def qwen3(**changes: Any) -> ModelFiles:
    values: dict[str, Any] = {
        "shapes": {},
        "words": WORDS,
        "parameters": 600_000_000,
        "dtype": "BF16",
        "names": ("Qwen/Qwen3-Reranker-0.6B",),
    }
    return cross_encoder(changes.pop("config", QWEN3), **(values | changes))


@pytest.mark.parametrize(
    "evidence",
    [
        {"names": ("me/my-qwen3-reranker-tuned", "model")},
        {"names": ("model", "Qwen3-Reranker-4B")},
        {"names": (), "card": "---\npipeline_tag: text-ranking\nbase_model: Qwen/Qwen3-Reranker-0.6B\n---"},
        {
            "names": (),
            "card": SENTENCE,
        },
        {
            "names": (),
            "chat_template": f"…{SENTENCE}…",
        },
    ],
)
def test_what_shows_that_a_language_model_is_a_reranker(evidence: dict[str, Any]) -> None:
    decided = plan(qwen3(**evidence), Options())
    assert (decided.hf_overrides, decided.convert, decided.score_range) == (ORIGINAL, "classify", "[0,1]")


@pytest.mark.parametrize(
    "evidence",
    [
        {"names": ()},
        {"names": ("Qwen/Qwen3-0.6B",)},
        {"names": (), "card": "Compare with Qwen3-Reranker.\npipeline_tag: text-generation"},
        {"names": (), "card": "pipeline_tag: text-ranking"},
    ],
)
def test_what_does_not(evidence: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="is a language model") as refusal:
        plan(qwen3(**evidence), Options())
    assert refusal.value.reason == Reason.NOT_A_RERANKER
    assert plan(qwen3(**evidence), Options(Method.CROSS_ENCODER)).family == "qwen3"


def test_an_instruction_is_in_the_template_and_changes_its_hash() -> None:
    default, own = plan(qwen3(), Options()), plan(qwen3(), Options(instruction="Find code"))
    assert default.instruction == "Given a web search query, retrieve relevant passages that answer the query"
    assert f"<Instruct>: {default.instruction}\n" in default.render("q", "d")
    assert own.instruction == "Find code"
    assert "<Instruct>: Find code\n" in own.render("q", "d")
    assert "<Instruct>: Other\n" in own.render("q", "d", "Other")
    assert default.template_sha256 != own.template_sha256
    assert default.as_json()["template_sha256"] == default.template_sha256
    assert "template" not in default.as_json()


RECORDED = {"model_type": "CrossEncoder", "default_prompt_name": "query", "prompts": {"query": "Find tests"}}


def test_an_instruction_that_training_recorded_is_the_default() -> None:
    assert plan(qwen3(sentence_transformers=RECORDED), Options()).instruction == "Find tests"
    assert plan(qwen3(sentence_transformers=RECORDED), Options(instruction="x")).instruction == "x"


@pytest.mark.parametrize("config", [{}, XLM_R])
def test_a_pair_model_trained_with_a_prompt_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="trained with a prompt before queries"):
        plan(cross_encoder(config, sentence_transformers=RECORDED), Options())
    unused = RECORDED | {"default_prompt_name": None}
    assert plan(cross_encoder(config, sentence_transformers=unused), Options()).template is None


def test_a_pair_model_has_no_prompt() -> None:
    decided = plan(cross_encoder(), Options())
    assert (decided.template, decided.template_sha256, decided.instruction) == (None, None, None)
    with pytest.raises(ValueError, match="has no template"):
        decided.render("q", "d")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(instruction="Find code"), "has no place for one"),
        (Options(max_model_len=513), "reads at most 512"),
        (Options(max_model_len=0), "engine.maxModelLen is 0"),
        (
            Options(max_tokens_per_document=-1, max_tokens_per_query=0),
            "maxTokensPerDocument is -1, .*PerQuery is 0",
        ),
        (Options(dtype="int8"), "engine.dtype is int8"),
        (Options(gpu_memory_utilization=0.5), "there is no GPU"),
        (Options(device=Device.CUDA, gpu_memory_utilization=1.5), "is 1.5"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Options, says: str) -> None:
    with pytest.raises(Failure, match=says) as refusal:
        plan(cross_encoder(), options)
    assert refusal.value.reason == Reason.INVALID_OPTIONS


def test_options_reach_the_plan() -> None:
    decided = plan(
        cross_encoder(),
        Options(
            device=Device.CUDA,
            max_model_len=256,
            dtype="float32",
            gpu_memory_utilization=0.4,
            max_tokens_per_document=200,
            max_tokens_per_query=50,
            on_overflow=OnOverflow.REJECT,
        ),
    )
    assert (decided.context_length, decided.dtype, decided.gpu_memory_utilization) == (256, "float32", 0.4)
    assert decided.truncation == Truncation(200, 50, OnOverflow.REJECT)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(device=Device.CUDA), 8192),
        (Options(device=Device.CUDA, max_model_len=32768), 32768),
        (Options(device=Device.CUDA, gpu_memory=24 * 2**30), 8192),
        (Options(device=Device.CUDA, gpu_memory=3 * 2**30), 2048),
        (Options(), 8192),
        (Options(memory_limit=6 * 2**30), 4096),
    ],
)
def test_a_context_is_shortened_only_to_fit(options: Options, expected: int) -> None:
    decided = plan(qwen3(), options)
    assert decided.context_length == expected
    # 28 layers with 8 heads of 128 for keys and for values, in blocks of 128 tokens and one more.
    size = 4 if options.device is Device.CPU else 2
    assert decided.kv_cache_bytes == 2 * 28 * 8 * 128 * (expected + 128) * size


@pytest.mark.parametrize(
    ("options", "reason", "says"),
    [
        (
            Options(device=Device.CUDA, gpu_memory=2 * 2**30),
            Reason.GPU_OUT_OF_MEMORY,
            "GiB more than the 1.8 GiB",
        ),
        (
            Options(device=Device.CUDA, gpu_memory=3 * 2**30, max_model_len=8192),
            Reason.GPU_OUT_OF_MEMORY,
            "engine.maxModelLen to a shorter length",
        ),
        (Options(memory_limit=4 * 2**30), Reason.ENGINE_OUT_OF_MEMORY, "for texts of 2048 tokens"),
    ],
)
def test_what_does_not_fit_says_by_how_much(options: Options, reason: Reason, says: str) -> None:
    with pytest.raises(Failure, match=says) as refusal:
        plan(qwen3(), options)
    assert refusal.value.reason == reason


SPLIT = Options(device=Device.CUDA, split=2, gpus=2)


def test_a_model_that_is_split_takes_its_part_of_each_gpu() -> None:
    """Weights, cache and the wide part of a layer are divided; the 3 GiB are too few for a whole one."""
    whole = plan(qwen3(), Options(device=Device.CUDA))
    decided = plan(qwen3(), replace(SPLIT, gpu_memory=3 * 2**30))
    assert (whole.split, decided.split) == (1, 2)
    assert (whole.context_length, decided.context_length) == (8192, 8192)
    assert decided.kv_cache_bytes == (whole.kv_cache_bytes or 0) // 2
    halved = 600_000_000 * 2 + (whole.kv_cache_bytes or 0) + 8192 * 2 * 3072 * 2
    assert decided.memory_bytes == 2 * (whole.memory_bytes - halved // 2 + 2**29)


@pytest.mark.parametrize(
    ("files", "split", "says"),
    [
        (
            cross_encoder(BERT | {"num_attention_heads": 12, "intermediate_size": 3072}),
            8,
            r"attention heads, 12, cannot be divided by 8\. Set resources\.gpu\.count: 1 or 2 or 4\.",
        ),
        (cross_encoder(BERT | {"intermediate_size": 1001}), 2, "intermediate_size, 1001, cannot be divided"),
        (
            qwen3(config=QWEN3 | {"num_attention_heads": 24, "num_key_value_heads": 6}),
            4,
            "heads of keys and values, 6, cannot be divided by 4",
        ),
        (
            qwen3(config=QWEN3 | {"vocab_size": 1000}, words=WORDS | {"yes": 300, "no": 7}),
            4,
            r"yes is not among the first 256 tokens\. Set resources\.gpu\.count: 1 or 2\.",
        ),
        (
            cross_encoder(BERT | {"architectures": ["ModernBertForSequenceClassification"]}),
            2,
            r"does not divide models of the family modernbert\. Set resources\.gpu\.count: 1\.",
        ),
        (cross_encoder(), 3, "resources.gpu.count is 3, not one of 1, 2, 4, 8"),
    ],
)
def test_what_cannot_be_divided_is_not_split(files: ModelFiles, split: int, says: str) -> None:
    with pytest.raises(Failure, match=says) as refusal:
        plan(files, Options(device=Device.CUDA, split=split))
    assert refusal.value.reason == Reason.INVALID_OPTIONS


def test_fewer_heads_of_keys_than_gpus_are_kept_more_than_once() -> None:
    config = QWEN3 | {"num_key_value_heads": 2}
    two, eight = (
        plan(qwen3(config=config), Options(device=Device.CUDA, split=split)).kv_cache_bytes
        for split in (2, 8)
    )
    assert two == eight


def test_gpus_that_are_not_there_are_told() -> None:
    with pytest.raises(Failure, match="and the container sees 1") as refusal:
        plan(cross_encoder(), replace(SPLIT, gpus=1))
    assert refusal.value.reason == Reason.GPU_UNUSABLE


def test_what_does_not_fit_on_one_gpu_may_fit_on_several() -> None:
    large = qwen3(parameters=8_000_000_000)
    on_one = Options(device=Device.CUDA, gpu_memory=16 * 2**30)
    with pytest.raises(Failure, match=r"or several of these \(resources\.gpu\.count: 2\)"):
        plan(large, on_one)
    with pytest.raises(Failure, match=r"Each of 2 parts of the model .*resources\.gpu\.count: 4"):
        plan(large, replace(on_one, gpu_memory=8 * 2**30, split=2))
    with pytest.raises(Failure) as refusal:
        plan(large, replace(on_one, gpu_memory=2**30))
    assert "several" not in refusal.value.message
