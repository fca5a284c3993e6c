"""GTE's own encoder (`NewModel`: rotary positions, gated layers): gte-multilingual-reranker-base."""

from __future__ import annotations

from rerank_runtime import activation
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families import checks
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

_NATIVE = "GteForSequenceClassification"
ARCHITECTURES = ("NewForSequenceClassification", "GteNewForSequenceClassification", _NATIVE)


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How a GTE cross-encoder is served.

    Raises:
        Failure: it cannot be, or not as asked.
    """
    config = files.config
    checks.cross_encoder(architecture, options.method)
    if architecture == _NATIVE or config.get("model_type") != "new":
        # vLLM's class insists on the configuration class NewConfig (models/config.py: GteNewModelConfig).
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            "The model is in transformers' own GTE layout, which vLLM does not load as a reranker yet. "
            "Choose an earlier revision, one whose config.json says model_type: new.",
        )
    checks.modules(files, architecture)
    checks.no_prompt(files, architecture)
    checks.one_label(config)
    checks.head(files, "classifier.weight")
    checks.allowed_code(files, options, architecture)
    return Profile(
        family="gte-new",
        score_range=activation.score_range(files),
        longest=checks.longest(files, checks.integer(config, "max_position_embeddings")),
        hf_overrides={"architectures": ["GteNewForSequenceClassification"]} | activation.overrides(files),
        remote_code=True,
    )
