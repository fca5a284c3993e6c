"""Llama-Nemotron rerankers: a Llama that reads in both directions, with a classification head."""

from __future__ import annotations

from rerank_runtime import activation
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families import checks
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

ARCHITECTURES = ("LlamaBidirectionalForSequenceClassification",)

# The model card reads this many tokens; positions go further.
_USUAL = 8192


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How a Llama-Nemotron reranker is served: plain logits, as its card has them, for at about ±20 a sigmoid
    leaves no difference between good documents.

    Raises:
        Failure: it cannot be, or not as asked.
    """
    config = files.config
    checks.cross_encoder(architecture, options.method)
    checks.modules(files, architecture)
    checks.one_label(config)
    checks.head(files, "score.weight")
    if config.get("pooling") not in ("avg", "cls", "last"):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"{architecture} with {config.get('pooling', 'no')} pooling is not served.",
        )
    checks.allowed_code(files, options, architecture)
    return Profile(
        family="nemotron",
        score_range=activation.LOGITS,
        longest=checks.longest(files, checks.integer(config, "max_position_embeddings")),
        usual=_USUAL,
        pooler_config={"use_activation": False},
        template="nemotron_rerank",
        half="bfloat16",
        remote_code=True,
    )
