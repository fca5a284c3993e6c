"""How a model is served: a pure decision from what its files say.

BERT-type cross-encoders and embedding models are planned; everything else is refused with its reason, because
a model served with a wrong configuration answers 200 with plausible scores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rerank_runtime import activation
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Device, Method, Options
from rerank_runtime.serve_plan import ServePlan

__all__ = ["SUPPORTED", "Device", "Method", "Options", "ServePlan", "plan"]


@dataclass(frozen=True)
class _Family:
    name: str
    model_type: str
    cross_encoder: str
    embedding: str
    head: str
    """Name of the classification head's last weights."""


_FAMILIES = (
    _Family("bert", "bert", "BertForSequenceClassification", "BertModel", "classifier.weight"),
    _Family(
        "xlm-roberta",
        "xlm-roberta",
        "XLMRobertaForSequenceClassification",
        "XLMRobertaModel",
        "classifier.out_proj.weight",
    ),
    _Family(
        "roberta", "roberta", "RobertaForSequenceClassification", "RobertaModel", "classifier.out_proj.weight"
    ),
)
SUPPORTED = tuple(name for f in _FAMILIES for name in (f.cross_encoder, f.embedding))

# vLLM's attention on CPU takes heads in multiples of this; with others it starts, and the first request kills
# it.
_CPU_HEAD_MULTIPLE = 32
# What vLLM's three processes hold before any weights, as measured: with less the kernel is sure to kill them.
_CPU_BASE_BYTES = 2 * 2**30
_GIB = 2**30
# Larger numbers in tokenizer_config.json mean "no limit" (transformers writes 1e30).
_NO_LENGTH_LIMIT = 1_000_000


def plan(files: ModelFiles, options: Options) -> ServePlan:
    """Decide how to serve a model.

    Raises:
        Failure: `NotAReranker` where it gives no usable score, or none of the method asked for;
            `UnsupportedArchitecture`, `FileMissing`, `EngineOutOfMemory` where it cannot be served here.
    """
    architecture, family = _family(files.config)
    cross_encoder = architecture == family.cross_encoder
    _check_code(files.config, architecture)
    if not files.has_tokenizer:
        raise Failure(
            Reason.FILE_MISSING,
            "There is no tokenizer.json. Prompts are checked against it before a model becomes ready: "
            "save the tokenizer in its fast form beside the model.",
        )
    if cross_encoder:
        _check_cross_encoder(files, family, options.method)
        score_range = activation.score_range(files.config)
    else:
        _check_embedding(files, architecture, options.method)
        score_range = activation.COSINE
    _check_device(files, options)
    return ServePlan(
        family=family.name,
        architecture=architecture,
        method=Method.CROSS_ENCODER if cross_encoder else Method.COSINE,
        score_range=score_range,
        convert="classify" if cross_encoder else "embed",
        hf_overrides=_overrides(files.config, family),
        dtype=_dtype(files.dtype, options.device),
        context_length=_context_length(files, family),
        parameters=files.parameters,
        weights_bytes=files.weights_bytes,
    )


def _family(config: dict[str, Any]) -> tuple[str, _Family]:
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"config.json names no architecture. Supported are {', '.join(SUPPORTED)}.",
        )
    architecture = str(architectures[0])
    for family in _FAMILIES:
        if architecture in (family.cross_encoder, family.embedding):
            return architecture, family
    if "ForSequenceClassification" in architecture or re.search(r"(?<!LMHead)Model$", architecture):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"{architecture} is not served yet. Supported are {', '.join(SUPPORTED)}.",
        )
    raise Failure(
        Reason.NOT_A_RERANKER,
        f"{architecture} gives no relevance score for a pair of texts. Supported are {', '.join(SUPPORTED)}.",
    )


def _check_code(config: dict[str, Any], architecture: str) -> None:
    if config.get("auto_map"):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model brings its own Python code for {architecture} (auto_map), which is not run.",
        )
    position = config.get("position_embedding_type", "absolute")
    if position not in (None, "absolute"):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"{architecture} with {position} position embeddings is not served; absolute ones are.",
        )


def _check_cross_encoder(files: ModelFiles, family: _Family, method: Method) -> None:
    if method is Method.COSINE:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"{family.cross_encoder} is a cross-encoder and has no embeddings to compare by cosine. "
            "Remove scoring.method, or set it to CrossEncoder.",
        )
    labels = _labels(files.config)
    if labels != 1:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"The model is a classifier with {labels} labels; a reranker has one, the relevance.",
        )
    head = files.shapes.get(family.head)
    if head is None or head[0] != 1:
        what = "are not there" if head is None else f"have shape {list(head)}"
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"The weights of the classification head ({family.head}) {what}: the scores would be random.",
        )


def _labels(config: dict[str, Any]) -> int:
    # As transformers counts them (configuration_utils: num_labels follows id2label; 2 where nothing is said).
    names = config.get("id2label")
    if isinstance(names, dict):
        return len(names)
    count = config.get("num_labels")
    return int(count) if isinstance(count, int) else 2


def _check_embedding(files: ModelFiles, architecture: str, method: Method) -> None:
    if method is Method.AUTO:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"{architecture} is an embedding model, not a cross-encoder. To rank by the cosine of its "
            "embeddings, set scoring.method: Cosine.",
        )
    if method is Method.CROSS_ENCODER:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"{architecture} is an embedding model and has no classification head, but scoring.method "
            "is CrossEncoder. Set it to Cosine, or choose a cross-encoder.",
        )
    if files.modules is None:
        raise Failure(
            Reason.NOT_A_RERANKER,
            "The model has no modules.json of sentence-transformers, so how its token embeddings are pooled "
            "is not known.",
        )
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in files.modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model is made of {', '.join(kinds)}; supported is Transformer, Pooling and "
            "at the end Normalize.",
        )
    modes = _pooling_modes(files.pooling)
    if modes not in (["cls"], ["mean"]):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model pools its token embeddings by {' and '.join(modes) or 'nothing known'}; "
            "supported is cls or mean alone.",
        )
    _check_similarity(files, normalized=kinds[-1] == "Normalize")


def _pooling_modes(pooling: dict[str, Any]) -> list[str]:
    if isinstance(pooling.get("pooling_mode"), str):
        return [str(pooling["pooling_mode"])]
    names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    flags = (key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True)
    return [names.get(key, key.removeprefix("pooling_mode_")) for key in flags]


def _check_similarity(files: ModelFiles, *, normalized: bool) -> None:
    settings = files.sentence_transformers
    prompts = settings.get("prompts")
    used = sorted(name for name, text in prompts.items() if text) if isinstance(prompts, dict) else []
    if settings.get("default_prompt_name") or {"query", "document", "passage"}.intersection(used):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model was trained with prompts ({', '.join(used)}), which are not put before texts yet: "
            "its scores would be wrong.",
        )
    similarity = settings.get("similarity_fn_name")
    if similarity not in (None, "cosine") and not (similarity == "dot" and normalized):
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"The model compares its embeddings by {similarity}, not by cosine.",
        )


def _check_device(files: ModelFiles, options: Options) -> None:
    if options.device is not Device.CPU:
        return
    heads, hidden = _integer(files.config, "num_attention_heads"), _integer(files.config, "hidden_size")
    if hidden % heads or (hidden // heads) % _CPU_HEAD_MULTIPLE:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"On a CPU attention heads need a size in multiples of {_CPU_HEAD_MULTIPLE}; here it is "
            f"{hidden}/{heads}. Set resources.gpu.count: 1.",
        )
    needed = _CPU_BASE_BYTES + 4 * files.parameters
    if options.memory_limit is not None and options.memory_limit < needed:
        raise Failure(
            Reason.ENGINE_OUT_OF_MEMORY,
            f"The model needs about {needed / _GIB:.1f} GiB of memory on a CPU and the container may use "
            f"{options.memory_limit / _GIB:.1f} GiB: set resources.memory: {-(-needed // _GIB)}Gi or more.",
        )


def _dtype(weights: str, device: Device) -> str:
    # On a CPU as the reference computes: half precision saves memory there, not time, and moves scores by up
    # to 0.06.
    if device is Device.CPU:
        return "float32"
    return "bfloat16" if weights == "BF16" else "float16"


def _overrides(config: dict[str, Any], family: _Family) -> dict[str, str]:
    # vLLM's RoBERTa asks for it, and transformers 5 no longer saves it.
    if family.name == "bert" or "position_embedding_type" in config:
        return {}
    return {"position_embedding_type": "absolute"}


def _context_length(files: ModelFiles, family: _Family) -> int:
    """The shortest of what the positions, the tokenizer and sentence-transformers allow.

    RoBERTa counts positions from the padding token's id + 1, so two of them are never used; vLLM does not
    know it for models that transformers 5 saved, and scores pairs from positions that do not exist. Beyond
    the other two limits the model was not trained (its own library truncates there).
    """
    positions = _integer(files.config, "max_position_embeddings")
    if family.name != "bert":
        padding = files.config.get("pad_token_id", 1)
        positions -= (padding if isinstance(padding, int) else 1) + 1
    limits = [positions]
    tokenizer = files.tokenizer_config.get("model_max_length")
    if isinstance(tokenizer, int) and 0 < tokenizer < _NO_LENGTH_LIMIT:
        limits.append(tokenizer)
    if files.max_sequence_length is not None:
        limits.append(files.max_sequence_length)
    return min(limits)


def _integer(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Failure(Reason.FILE_MISSING, f"config.json has no usable {key}.")
    return value
