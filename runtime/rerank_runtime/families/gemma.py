"""bge-reranker-v2-gemma: a Gemma language model, scored by its logit of Yes."""

from __future__ import annotations

from rerank_runtime import activation
from rerank_runtime.families import checks
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

ARCHITECTURES = ("GemmaForCausalLM",)

_SENTENCE = "Given a query A and a passage B, determine whether the passage contains an answer to the query"
_NAME = r"bge-reranker-v2-gemma"


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How bge-reranker-v2-gemma is served.

    Raises:
        Failure: it cannot be, or not as asked; `NotAReranker` for a plain language model.
    """
    config = files.config
    checks.cross_encoder(architecture, options.method)
    checks.no_code(config, architecture)
    checks.modules(files, architecture)
    if not checks.identified(files, options.method, name=_NAME, sentence=_SENTENCE):
        raise checks.generator(architecture, "bge-reranker-v2-gemma")
    checks.words(files, ("Yes",))
    return Profile(
        family="gemma",
        score_range=activation.UNIT,
        longest=checks.longest(files, checks.integer(config, "max_position_embeddings")),
        hf_overrides={
            "architectures": ["GemmaForSequenceClassification"],
            "classifier_from_token": ["Yes"],
            "method": "no_post_processing",
        },
        template="bge_reranker_v2_gemma",
        caches=True,
        half="bfloat16",
        # vLLM refuses Gemma 2 and 3 in float16 for numerical instability (config/model.py:
        # _FLOAT16_NOT_SUPPORTED_MODELS). Of this one it is not known.
        without_bfloat16="float32",
    )
