"""mxbai-rerank v2: a Qwen2 language model that says 1 or 0."""

from __future__ import annotations

from rerank_runtime import activation
from rerank_runtime.families import checks
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

ARCHITECTURES = ("Qwen2ForCausalLM",)

_SENTENCE = "You are a search relevance expert who evaluates how well documents match search queries."
_NAME = r"mxbai-rerank-[a-z]+-v2"
_ANSWERS = ("1", "0")
# The library cuts a query and a document at this length together.
_USUAL = 8192


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How mxbai-rerank v2 is served. The library scores by the plain difference of logits; vLLM puts it
    through a sigmoid, which keeps the order.

    Raises:
        Failure: it cannot be, or not as asked; `NotAReranker` for a plain language model.
    """
    config = files.config
    checks.cross_encoder(architecture, options.method)
    checks.no_code(config, architecture)
    checks.modules(files, architecture, [("Transformer", "LogitScore")])
    if not checks.identified(files, options.method, name=_NAME, sentence=_SENTENCE):
        raise checks.generator(architecture, "mxbai-rerank v2")
    checks.answers(files, _ANSWERS, "mxbai-rerank v2")
    checks.words(files, ("<|im_start|>", "<|im_end|>"))
    return Profile(
        family="mxbai-v2",
        score_range=activation.UNIT,
        longest=checks.longest(files, checks.integer(config, "max_position_embeddings")),
        usual=_USUAL,
        hf_overrides={
            "architectures": ["Qwen2ForSequenceClassification"],
            "classifier_from_token": ["0", "1"],
            "method": "from_2_way_softmax",
        },
        template="mxbai_rerank_v2",
        takes_instruction=True,
        caches=True,
        half="bfloat16",
    )
