"""Write down what vLLM otherwise asks a process of its own at each start: what a model class can do.

Called by the Dockerfile (target `runtime-cpu`). At start vLLM imports itself once more in a subprocess only
to learn that, unless it finds the answer under VLLM_CACHE_ROOT; a quarter of the time that a pod needs to
start. The root filesystem of a pod is read-only, so the answer must be in the image. vLLM checks it against a
hash of its own code.
"""

from __future__ import annotations

from vllm.model_executor.models import registry

# The classes that serve the architectures of rerank_runtime.families. Language models are looked up by the
# class that they are converted from.
ARCHITECTURES = (
    "BertModel",
    "BertForSequenceClassification",
    "RobertaModel",
    "RobertaForSequenceClassification",
    "XLMRobertaModel",
    "XLMRobertaForSequenceClassification",
    "ModernBertModel",
    "ModernBertForSequenceClassification",
    "GteNewForSequenceClassification",
    "Qwen3ForCausalLM",
    "Qwen2ForCausalLM",
    "GemmaForCausalLM",
    "LlamaBidirectionalForSequenceClassification",
    "JinaForRanking",
    # Looked up first for an architecture that vLLM makes of another one, as of Qwen3ForCausalLM.
    "TransformersForSequenceClassification",
)


def main() -> None:
    lookups = [registry.ModelRegistry.models[name] for name in ARCHITECTURES]
    registry._run_in_subprocess = lambda look: look()  # noqa: SLF001 - vLLM's version is pinned
    for lookup in lookups:
        lookup.inspect_model_cls()
    registry._run_in_subprocess = _unanswered  # noqa: SLF001 - vLLM's version is pinned
    for lookup in lookups:
        lookup.inspect_model_cls()


def _unanswered(_: object) -> None:
    raise SystemExit("vLLM does not find what was written down")


if __name__ == "__main__":
    main()
