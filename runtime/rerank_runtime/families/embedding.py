"""Embedding models, ranked by the cosine of their embeddings where that is asked for."""

from __future__ import annotations

from rerank_runtime import activation, scoring_head
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families import checks, encoder
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Method, Options

_FAMILIES = {
    "BertModel": "bert",
    "RobertaModel": "roberta",
    "XLMRobertaModel": "xlm-roberta",
    "ModernBertModel": "modernbert",
    "Qwen3ForCausalLM": "qwen3",
}
ARCHITECTURES = ("BertModel", "RobertaModel", "XLMRobertaModel", "ModernBertModel")
_CHAINS = (("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize"))
_POOLING = {"qwen3": ("lasttoken",)}
_ENCODER_POOLING = ("cls", "mean")
# What E5 and its kin want before texts, and say in their card alone.
_CARD_PROMPTS = ('"query: ', '"passage: ')


def pools(files: ModelFiles) -> bool:
    """Whether the model is made to give one embedding for a text."""
    return "Pooling" in files.module_kinds


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How an embedding model is served as a reranker.

    Raises:
        Failure: it cannot be, or not as asked.
    """
    if options.method is Method.COSINE:
        return _by_cosine(files, architecture)
    if scoring_head.beside(files):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The head of this {architecture} lies in folders of sentence-transformers beside its weights "
            f"({', '.join(files.module_kinds[2:])}), where vLLM does not look. Fetched from a hub "
            "(spec.model.huggingFace) it is put into the weights, and the model is served; rerank-runtime "
            "fetch makes such a folder for a volume or an image.",
        )
    if files.sentence_transformers.get("model_type") == "CrossEncoder":
        checks.modules(files, architecture)
    if options.method is Method.CROSS_ENCODER:
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"{architecture} is an embedding model and has no classification head, but scoring.method "
            "is CrossEncoder. Set it to Cosine, or choose a cross-encoder.",
        )
    start = f"{architecture} is an embedding model, not a cross-encoder."
    try:
        _by_cosine(files, architecture)
    except Failure as failure:
        raise Failure(
            Reason.NOT_A_RERANKER, f"{start} Nor can it be ranked by cosine here: {failure.message}"
        ) from failure
    raise Failure(
        Reason.NOT_A_RERANKER,
        f"{start} To rank by the cosine of its embeddings, set scoring.method: Cosine.",
    )


def _by_cosine(files: ModelFiles, architecture: str) -> Profile:
    config, family = files.config, _FAMILIES[architecture]
    checks.no_code(config, architecture)
    _check_modules(files, _POOLING.get(family, _ENCODER_POOLING))
    _check_similarity(files)
    if family in ("bert", "roberta", "xlm-roberta"):
        encoder.absolute_positions(config, architecture)
        count = encoder.positions(config, family)
        overrides = encoder.overrides(config, family)
    else:
        count, overrides = checks.integer(config, "max_position_embeddings"), {}
    return Profile(
        family=family,
        method=Method.COSINE,
        score_range=activation.COSINE,
        longest=checks.longest(files, count),
        usual=8192,
        convert="embed",
        hf_overrides=overrides,
        caches=family == "qwen3",
        half="bfloat16" if family == "qwen3" else "float16",
    )


def _check_modules(files: ModelFiles, allowed: tuple[str, ...]) -> None:
    if files.modules is None:
        raise Failure(
            Reason.NOT_A_RERANKER,
            "The model has no modules.json of sentence-transformers, so how its token embeddings are pooled "
            "is not known.",
        )
    kinds = tuple(files.module_kinds)
    if kinds not in _CHAINS:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model is made of {', '.join(kinds)}; supported is Transformer, Pooling and "
            "at the end Normalize.",
        )
    modes = files.pooling_modes
    if len(modes) != 1 or modes[0] not in allowed:
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model pools its token embeddings by {' and '.join(modes) or 'nothing known'}; "
            f"supported is {' or '.join(allowed)} alone.",
        )


def _check_similarity(files: ModelFiles) -> None:
    settings = files.sentence_transformers
    prompts = settings.get("prompts")
    used = sorted(str(name) for name, text in prompts.items() if text) if isinstance(prompts, dict) else []
    if settings.get("default_prompt_name") or {"query", "document", "passage"}.intersection(used):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"The model was trained with prompts ({', '.join(used)}), which are not put before texts yet: "
            "its scores would be wrong.",
        )
    if all(prompt in files.card for prompt in _CARD_PROMPTS):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            "The model card asks for “query: ” and “passage: ” before texts, which are not put there yet: "
            "its scores would be wrong.",
        )
    similarity = settings.get("similarity_fn_name")
    normalized = files.module_kinds[-1:] == ["Normalize"]
    if similarity not in (None, "cosine") and not (similarity == "dot" and normalized):
        raise Failure(
            Reason.NOT_A_RERANKER,
            f"The model compares its embeddings by {similarity}, not by cosine.",
        )
