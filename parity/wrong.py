"""Wrong configurations that would answer 200 with plausible scores, and what must catch each. Data.

`changes` are made to vLLM's own command behind the plan's back, as if the plan were wrong: only verification
or vLLM itself can catch that. What the plan must refuse has other options or files instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

_QWEN3 = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: QUERY\n<Document>: DOCUMENT<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
_MXBAI = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nquery: QUERY\ndocument: DOCUMENT\nYou are a search relevance expert who evaluates how "
    "well documents match search queries. For each query-document pair, carefully analyze the semantic "
    "relationship between them, then provide your binary relevance judgment (0 for not relevant, 1 for "
    "relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n"
)
_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Wrong:
    """One wrong configuration.

    Args:
        family: Whose model is served.
        what: In words, for the table.
        reasons: One of these must be what the runtime says.
        changes: Flags of vLLM, see `vllm_program`; `TEMPLATE` as a value stands for a file with `template`.
        template: A chat template.
        options: Of `rerank-runtime`, instead of the family's own.
        without: A file that the model's directory lacks.
    """

    family: str
    what: str
    reasons: tuple[str, ...]
    changes: Mapping[str, str | None] = field(default_factory=dict)
    template: str = ""
    options: tuple[str, ...] | None = None
    without: str = ""


TEMPLATE = "TEMPLATE"


def jinja(prompt: str) -> str:
    """A template that gives this prompt, with the texts in place of QUERY and DOCUMENT, and nothing more."""
    text = "{%- set q = messages[0].content -%}{%- set d = messages[1].content -%}{{- " + json.dumps(
        prompt, ensure_ascii=False
    )
    return text.replace("QUERY", '" ~ q ~ "').replace("DOCUMENT", '" ~ d ~ "') + " -}}"


def _overrides(**values: object) -> str:
    return json.dumps(values)


_PLAN = ("NotAReranker",)
_ROUTES = ("WrongRoutes",)
_TOKENS = ("PromptTokensDiffer",)
_ORDER = ("ScoresInverted",)
_NO_START = ("EngineFailed", "UnsupportedArchitecture", "FileMissing", "RemoteCodeRequired")
_SWAPPED = _overrides(
    architectures=["Qwen3ForSequenceClassification"],
    classifier_from_token=["yes", "no"],
    is_original_qwen3_reranker=True,
)
_BARE_CLASS = _overrides(architectures=["Qwen3ForSequenceClassification"])
_NEW = _overrides(architectures=["Qwen3ForSequenceClassification"], classifier_from_token=["no", "yes"])
_CAUSAL = _overrides(architectures=["LlamaForSequenceClassification"])
_TRAP = {"--hf-overrides": None, "--convert": None}
_TEMPLATED = {"--chat-template": TEMPLATE}
_BARE = {"--chat-template": None}

CASES = (
    # the plan
    Wrong("embedding", "an embedding model taken for a cross-encoder", _PLAN, options=()),
    Wrong("qwen3", "a plain language model: nothing says that it is a reranker", _PLAN, without="README.md"),
    Wrong("bert", "a cross-encoder asked for cosines", _PLAN, options=("--method=Cosine",)),
    Wrong("nemotron", "remote code that nobody allowed", ("RemoteCodeRequired",), options=()),
    Wrong("gte-new", "remote code that nobody allowed", ("RemoteCodeRequired",), options=()),
    Wrong(
        "xlm-roberta-514",
        "514 tokens asked of a model of 512",
        ("InvalidOptions",),
        options=("--max-model-len=514",),
    ),
    Wrong(
        "bert", "an instruction that no prompt takes", ("InvalidOptions",), options=("--instruction=Find it",)
    ),
    # the engine
    Wrong("qwen3", "no overrides: the bi-encoder trap, cosines with 200", _ROUTES, _TRAP),
    Wrong("qwen3", "overrides without a template", _TOKENS, _BARE),
    Wrong(
        "qwen3",
        "the template without its last newline, as vLLM's example renders (same token count)",
        _ORDER,
        _TEMPLATED,
        jinja(_QWEN3.removesuffix("\n")),
    ),
    Wrong(
        "qwen3",
        "the scoring suffix cut off",
        _TOKENS,
        _TEMPLATED,
        jinja(_QWEN3.partition("<|im_end|>\n<|im_start|>assistant")[0]),
    ),
    Wrong("qwen3", "yes and no swapped", _ORDER, {"--hf-overrides": _SWAPPED}),
    Wrong("qwen3", "overrides without the tokens: no score row", _ROUTES, {"--hf-overrides": _BARE_CLASS}),
    Wrong("qwen3", "overrides without is_original_qwen3_reranker", _NO_START, {"--hf-overrides": _NEW}),
    Wrong("qwen3-seq-cls", "no template", _TOKENS, _BARE),
    Wrong(
        "qwen3-seq-cls",
        "the template without its last newline (same token count)",
        _ORDER,
        _TEMPLATED,
        jinja(_QWEN3.removesuffix("\n")),
    ),
    Wrong("mxbai-v2", "no overrides: cosines with 200", _ROUTES, _TRAP),
    Wrong("mxbai-v2", "no template", _TOKENS, _BARE),
    Wrong(
        "mxbai-v2",
        "the template without its last newline, as vLLM's example renders",
        _TOKENS,
        _TEMPLATED,
        jinja(_MXBAI.removesuffix("\n")),
    ),
    Wrong("gemma", "no overrides: cosines with 200", _ROUTES, _TRAP),
    Wrong("gemma", "no template", _TOKENS, _BARE),
    Wrong("nemotron", "no template", _TOKENS, _BARE),
    Wrong(
        "nemotron",
        "causal attention instead of both directions (same tokens)",
        _ORDER,
        {"--hf-overrides": _CAUSAL},
    ),
    Wrong("gte-new", "no remote code", _NO_START, {"--trust-remote-code": None}),
    Wrong("xlm-roberta-514", "514 tokens asked of vLLM", _NO_START, {"--max-model-len": "514"}),
    Wrong("bert", "a chat template given to a pair model", _TOKENS, _TEMPLATED, jinja("QUERY DOCUMENT")),
)
