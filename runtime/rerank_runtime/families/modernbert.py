"""ModernBERT cross-encoders: GTE ModernBERT, Granite R2, and the Ettin rerankers as fetch writes them
(scoring_head).
"""

from __future__ import annotations

from rerank_runtime import activation
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families import checks
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

ARCHITECTURES = ("ModernBertForSequenceClassification",)


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How a ModernBERT cross-encoder is served.

    Raises:
        Failure: it cannot be, or not as asked.
    """
    config = files.config
    checks.cross_encoder(architecture, options.method)
    checks.no_code(config, architecture)
    checks.modules(files, architecture)
    checks.no_prompt(files, architecture)
    checks.one_label(config)
    checks.head(files, "classifier.weight")
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE, f"{architecture} with {pooling} pooling is not served."
        )
    act = config.get("classifier_activation", "gelu")
    if act != "gelu":  # vLLM's head has no other (models/modernbert.py: ModernBertPooler)
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE, f"{architecture} with {act} in its head is not served; gelu is."
        )
    return Profile(
        family="modernbert",
        score_range=activation.score_range(files),
        longest=checks.longest(files, checks.integer(config, "max_position_embeddings")),
        hf_overrides=activation.overrides(files),
    )
