"""Qwen3-Reranker: the original, a language model that says yes or no, and its conversion to a classifier."""

from __future__ import annotations

from rerank_runtime import activation
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families import checks, embedding
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

_ORIGINAL, _CONVERTED = "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"
ARCHITECTURES = (_ORIGINAL, _CONVERTED)

_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_SENTENCE = "Judge whether the Document meets the requirements based on the Query and the Instruct provided."
_NAME = r"qwen3-reranker"
_MARKS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
_ANSWERS = ("yes", "no")
# The model card's examples read 8192 tokens; the model reads more where it is asked for.
_USUAL = 8192


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How a Qwen3 reranker is served.

    Raises:
        Failure: it cannot be, or not as asked; `NotAReranker` for a plain language model.
    """
    config = files.config
    if architecture == _ORIGINAL and embedding.pools(files):
        return embedding.profile(files, options, architecture)
    checks.cross_encoder(architecture, options.method)
    checks.no_code(config, architecture)
    checks.modules(files, architecture, [("Transformer", "LogitScore")])
    known = checks.identified(files, options.method, name=_NAME, sentence=_SENTENCE)
    if architecture == _ORIGINAL:
        if not known:
            raise checks.generator(architecture, "Qwen3-Reranker")
        checks.answers(files, _ANSWERS, "Qwen3-Reranker")
        checks.words(files, _MARKS)
        overrides = {
            "architectures": [_CONVERTED],
            "classifier_from_token": ["no", "yes"],
            "is_original_qwen3_reranker": True,
        }
        score_range = activation.UNIT
    else:
        if not known:
            raise Failure(
                Reason.NOT_A_RERANKER,
                f"{architecture} reads a prompt, and nothing in the model's files shows that it is that of "
                "Qwen3-Reranker. If it is, set scoring.method: CrossEncoder.",
            )
        checks.one_label(config)
        checks.head(files, "score.weight")
        checks.words(files, _MARKS)
        overrides = activation.overrides(files)
        score_range = activation.score_range(files)
    return Profile(
        family="qwen3",
        score_range=score_range,
        longest=checks.longest(files, checks.integer(config, "max_position_embeddings")),
        usual=_USUAL,
        hf_overrides=overrides,
        template="qwen3_reranker",
        # A fine-tune may have been trained with, and record, another one.
        instruction=checks.default_prompt(files) or _INSTRUCTION,
        takes_instruction=True,
        caches=True,
        half="bfloat16",
    )
